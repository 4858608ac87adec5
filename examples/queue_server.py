"""A work queue with asyncio: jobs go to whichever worker has the least to do.

Run:  python queue_server.py [HOST PORT]
"""

import asyncio
import sys

import hisock.aio
from hisock import CommandError, RemoteError, iptup_to_str
from hisock.errors import UnknownGroup

host, port = sys.argv[1:] or ("127.0.0.1", 6969)
server = hisock.aio.start_server((host, int(port)))


@server.on("join")
async def join(client):
    print(f"{client['name']} is here as {client['group']}", flush=True)


@server.on("factor")
async def factor(client, number: int) -> list[int]:
    """Pass the job on; the server serves everybody else meanwhile."""
    try:
        return await server.call_any("workers", "factor", number, type=list)
    except UnknownGroup:
        raise CommandError("nobody_works", "no worker is connected") from None
    except RemoteError as error:
        raise CommandError(error.code, error.message) from None


async def main():
    async with server:
        print(f"Serving at {iptup_to_str(server.addr)}", flush=True)
        await server.run_forever()


try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("Closed.")
