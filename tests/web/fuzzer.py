"""Runs kosoku, which has the cases of the RFC, in a process of its own: it changes
``sys.path`` and the standard library for them.

``fuzzer.py client ws://host:port`` tries a server. ``fuzzer.py server`` is one for a
client to try itself on, and writes its port first. Then both write what each case came
to, as JSON: its number to how it ended, how it was closed and why.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from kosoku import FailureError, run_fuzzingclient, run_fuzzingserver

#: Cases at a time: those that wait do so together.
AT_ONCE = 4


async def _run(kind: str, uri: str = "") -> dict[str, tuple[str, str, str]]:
    try:
        if kind == "client":
            results = await run_fuzzingclient(uri, concurrency=AT_ONCE)
        else:
            server = run_fuzzingserver(port=0)
            async with server:
                print(server.port, flush=True)
                results = await server.get_result()
    except FailureError as error:  # has all results, the good ones too
        results = error.results
    return {
        each.case_id: (each.behavior.value, each.behavior_close.value, each.result)
        for each in results
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_run(*sys.argv[1:]))), flush=True)
    # kosoku 0.1.0 now and then aborts while the interpreter ends (2 of 15 runs); all
    # is told by then.
    os._exit(0)
