"""Asks the workers to take numbers apart; each line is one job.

Run:  python queue_client.py [HOST PORT]
"""

import sys

from hisock import RemoteError, connect

host, port = sys.argv[1:] or ("127.0.0.1", 6969)
with connect((host, int(port)), name="asker", wait=10) as client:
    while True:
        try:
            number = int(input("Number: "))
        except EOFError:
            break
        except ValueError:
            print("A whole number, please.")
            continue
        try:
            factors = client.call("factor", number, type=list)
        except RemoteError as error:
            print(f"No: {error.message} ({error.code})")
        else:
            print(f"{number} = {' x '.join(map(str, factors))}")
