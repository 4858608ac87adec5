"""A game for browsers: everybody gathers sparks, and the server alone moves things.

Run:  python server.py [HOST PORT]
"""

import sys
from pathlib import Path

import arena

from hisock import Limits, iptup_to_str, start_server
from hisock.errors import Undelivered

host, port = sys.argv[1:] or ("127.0.0.1", 6969)
# Nobody is ever more than 16 KiB of states behind: the rest is conflated.
limits = Limits(outbox=16 * 1024)
pages = Path(__file__).with_name("pages")
server = start_server((host, int(port)), pages=pages, limits=limits)


@server.on("join")
def join(client):
    arena.enter(client, client.id, (client["name"] or "somebody")[:16])
    client.send("you", client.id)


@server.on("leave")
def leave(client):
    del arena.players[client]


@server.on("steer")
def steer(client, towards: tuple[float, float]):
    arena.steer(client, *towards)


@server.every(1 / 30)
def show():
    for client, player in arena.players.items():
        player["here"] = client.is_connected  # if not, its place and score wait
    arena.step()
    # The key: of the states that wait for somebody, only the newest is sent.
    server.send_all_clients("state", arena.state(), key="state")


@server.on_error
def report(error):
    if not isinstance(error, Undelivered):  # the last states for who has just left
        print(error)


print(f"Serving at http://{iptup_to_str(server.addr)}", flush=True)
server.run_forever()  # until Ctrl-C
