"""Watch the counter of threaded_server.py.

Run:  python threaded_client.py [HOST PORT]
"""

import sys

from hisock import ClientDisconnected, connect

host, port = sys.argv[1:] or ("127.0.0.1", 6969)

client = connect((host, int(port)))


@client.on("answer")
def answer(count: int):
    print(f"We asked, and the counter stands at {count}.")


@client.on("tick")
def tick(count: int):
    print(f"Tick {count}")


with client:
    try:
        client.send("ask_count", "")
        while True:
            client.update()
    except KeyboardInterrupt:
        print("Bye!")
    except ClientDisconnected:
        print("The server has gone.")
