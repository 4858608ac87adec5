"""A worker: takes numbers apart for whoever asks. Start as many as you have cores.

Run:  python queue_worker.py [HOST PORT [NAME]]
"""

import sys

from hisock import CommandError, connect

host, port, *rest = sys.argv[1:] or ("127.0.0.1", 6969)
name = rest[0] if rest else "worker"
client = connect((host, int(port)), name=name, group="workers", wait=10)


@client.on("factor")
def factor(number: int) -> list[int]:
    if number < 2:
        raise CommandError("too_small", f"{number} has no prime factors")
    factors, candidate = [], 2
    while candidate * candidate <= number:
        while number % candidate == 0:
            factors.append(candidate)
            number //= candidate
        candidate += 1
    return factors + [number] * (number > 1)


print(f"{name} waits for work", flush=True)
client.run_forever()  # until Ctrl-C
