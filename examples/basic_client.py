"""Say hello to basic_server.py and let it do sums.

Run:  python basic_client.py [HOST PORT [NAME]]
"""

import sys
import time

from hisock import ClientDisconnected, connect

if sys.argv[1:]:
    host, port, *names = sys.argv[1:]
    name = names[0] if names else None
else:
    host = input("Address of the server (Enter for 127.0.0.1): ") or "127.0.0.1"
    port = input("Its port (Enter for 6969): ") or "6969"
    name = input("Your name (Enter for none): ") or None

started = time.time()
client = connect((host, int(port)), name=name, reconnect=False)


@client.on("hello")
def hello(server_time: float):  # the hint turns what arrives into a float
    took = (server_time - started) * 1000
    print(f"The server said hello {took:.1f} ms after we called it.")


with client:
    try:
        client.update()  # waits for the hello
        while True:
            client.send("calculate", input("Your sum: "))
            print("Answer:", client.recv_raw().decode())
    except (EOFError, KeyboardInterrupt):
        print("Bye!")
    except ClientDisconnected:
        print("The server has gone.")
