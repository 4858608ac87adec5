"""A chat for browsers: every room is a group, and all see who is in which.

Run:  python server.py [HOST PORT]
"""

import sys
import time
from collections import deque
from pathlib import Path

from hisock import iptup_to_str, start_server

host, port = sys.argv[1:] or ("127.0.0.1", 6969)
pages = Path(__file__).with_name("pages")
server = start_server((host, int(port)), pages=pages, unique_names="reject")
rooms = {name: deque(maxlen=50) for name in ("Lobby", "Garden", "Music", "Games")}


def tell(room, text, who=None):
    if room in rooms:  # a stranger's program may be in any group, or in none
        rooms[room].append({"who": who, "text": text[:2000], "time": time.time()})
        server.group(room).send("line", rooms[room][-1])


def note(room, text):
    tell(room, text)
    here = {room: [str(who["name"]) for who in server.group(room)] for room in rooms}
    server.send_all_clients("here", here, key="here")  # only the newest counts


@server.on("join")
def join(client, came="came in"):
    client.send("lines", list(rooms.get(client["group"], ())))
    note(client["group"], f"{client['name']} {came}")


@server.on("leave")
def leave(client):
    note(client["group"], f"{client['name']} left")


@server.on("group_change")
def group_change(client, old, new):
    note(old, f"{client['name']} went to {new}")
    join(client, f"came from {old}")


@server.on("name_change")
def name_change(client, old, new):
    note(client["group"], f"{old} is now {new}")


@server.on("say")
def say(client, text: str):
    tell(client["group"], text, client["name"])


print(f"Serving at http://{iptup_to_str(server.addr)}", flush=True)
server.run_forever()  # until Ctrl-C
