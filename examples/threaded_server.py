"""A server in a thread, beside a program that has its own work: here, a counter.

Run:  python threaded_server.py [HOST PORT [SECONDS]]
"""

import sys
import time
from contextlib import suppress

from hisock import iptup_to_str, start_threaded_server

host, port, *rest = sys.argv[1:] or ("127.0.0.1", 6969)
pace = float(rest[0]) if rest else 1.0  # seconds from count to count
server = start_threaded_server((host, int(port)))
count = 0


@server.on("ask_count")
def ask_count(client, _):  # runs in the thread of the server
    server.send_client(client, "answer", count)


with server, suppress(KeyboardInterrupt):  # starts the thread; stops it at the end
    print(f"Serving at {iptup_to_str(server.addr)}", flush=True)
    while True:  # the main thread is free to do its own work
        time.sleep(pace)
        count += 1
        server.send_all_clients("tick", count)
print(f"Counted to {count}.")
