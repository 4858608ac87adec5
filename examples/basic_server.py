"""Greet every client and do sums for it: a small but complete server.

Run:  python basic_server.py [HOST PORT]
"""

import sys
import time
from contextlib import suppress

import safe_sums

from hisock import iptup_to_str, start_server

host, port = sys.argv[1:] or ("127.0.0.1", 6969)
server = start_server((host, int(port)))


@server.on("join")
def greet(client):
    print(f"{client['name'] or 'Somebody'} came from {iptup_to_str(client['ip'])}")
    server.send_client(client, "hello", time.time())


@server.on("leave")
def wave(client):
    print(f"{client['name'] or 'Somebody'} left")


@server.on("calculate")
def calculate(client, text: str):  # the hint turns what arrives into a str
    answer = safe_sums.answer(text)
    print(f"{text!r}: {answer}")
    server.send_client_raw(client, answer)  # raw: without a command


with server, suppress(KeyboardInterrupt):
    print(f"Serving at {iptup_to_str(server.addr)}", flush=True)
    while True:
        server.run()
