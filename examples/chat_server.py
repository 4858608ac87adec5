"""A chat for the terminal: every name is a client's name, every room a group.

Run:  python chat_server.py [HOST PORT]
"""

import sys
from contextlib import suppress

from hisock import iptup_to_str, start_server

host, port = sys.argv[1:] or ("127.0.0.1", 6969)

server = start_server((host, int(port)))


def tell_room(room, line):
    if room in server.get_all_clients("group"):  # else nobody is left to hear it
        server.send_group(room, "line", line)


@server.on("join")
def join(client):
    tell_room(client["group"], f"* {client['name']} came in")


@server.on("leave")
def leave(client):
    tell_room(client["group"], f"* {client['name']} left")


@server.on("name_change")
def name_change(client, old, new):
    tell_room(client["group"], f"* {old} is now {new}")


@server.on("group_change")
def group_change(client, old, new):
    tell_room(old, f"* {client['name']} went to {new}")
    tell_room(new, f"* {client['name']} came from {old}")


@server.on("say")
def say(client, text: str):
    tell_room(client["group"], f"{client['name']}: {text}")


@server.on("who")
def who(client, _):
    names = [person["name"] for person in server.get_group(client["group"])]
    here = ", ".join(sorted(map(str, names)))
    server.send_client(client, "line", f"* In {client['group']}: {here}")


@server.on("tell")
def tell(client, note: list):
    receiver, text = note
    try:
        server.send_client(receiver, "line", f"{client['name']} (to you): {text}")
    except (TypeError, ValueError):
        server.send_client(client, "line", f"* Nobody here is called {receiver}")


with server, suppress(KeyboardInterrupt):
    print(f"Serving at {iptup_to_str(server.addr)}", flush=True)
    while True:
        server.run()
