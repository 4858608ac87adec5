"""Talk in chat_server.py: lines arrive in a thread while you type in the other.

Run:  python chat_client.py [HOST PORT [NAME [ROOM]]]
"""

import os
import sys
from contextlib import suppress

from hisock import threaded_connect

HELP = "Commands: /name NEW, /room ROOM, /who, /to NAME MESSAGE, /quit"

host, port, *rest = sys.argv[1:] or ("127.0.0.1", 6969)
name = rest[0] if rest else input("Your name: ")
room = rest[1] if len(rest) > 1 else "lobby"
client = threaded_connect((host, int(port)), name=name, group=room)


@client.on("line")
def show(line: str):
    # Others must not send control characters to our terminal.
    print("".join(filter(str.isprintable, line)))


@client.on("force_disconnect")
def server_has_gone():
    print("The server has closed the chat.", flush=True)
    os._exit(0)  # the main thread waits in input(), and nothing else wakes it


def obey(line):
    match line.split(maxsplit=2):
        case []:
            pass
        case ["/name", new_name]:
            client.change_name(new_name)
        case ["/room", new_room]:
            client.change_group(new_room)
        case ["/who"]:
            client.send("who", "")
        case ["/to", receiver, text]:
            client.send("tell", [receiver, text])
        case [word, *_] if word.startswith("/"):
            print(HELP)
        case _:
            client.send("say", line)


print(HELP)
with suppress(EOFError, KeyboardInterrupt), client:  # starts and stops the thread
    while (line := input()) != "/quit":
        obey(line)
print("Bye!")
