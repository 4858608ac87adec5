"""``python -m bench``: every benchmark; ``--smoke`` only whether they run."""

from __future__ import annotations

import argparse
import time
from typing import Any

from bench import (
    calls,
    large,
    one_way,
    ping_pong,
    sessions,
    single_send,
    streams,
    threaded,
    typed,
    websocket_echo,
    websocket_fan_out,
    websocket_memory,
    websocket_one_way,
)

#: Each benchmark, and how much of it is enough to see that it runs.
_ALL: dict[str, tuple[Any, int]] = {
    "one_way": (one_way, 2_000),
    "single_send": (single_send, 2_000),
    "ping_pong": (ping_pong, 1_000),
    "typed": (typed, 2_000),
    "calls": (calls, 1_000),
    "large": (large, 20),
    "sessions": (sessions, 2_000),
    "streams": (streams, 1_000),
    "threaded": (threaded, 100),
    "websocket_echo": (websocket_echo, 200),
    "websocket_one_way": (websocket_one_way, 1_000),
    "websocket_fan_out": (websocket_fan_out, 10),
    "websocket_memory": (websocket_memory, 20),
}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("only", nargs="*", choices=[[], *_ALL], help="default: all")
    parser.add_argument("--smoke", action="store_true", help="small and quick")
    chosen = parser.parse_args()
    began = time.perf_counter()
    for name, (benchmark, enough) in _ALL.items():
        if chosen.only and name not in chosen.only:
            continue
        if chosen.smoke:
            benchmark.main(amount=enough, runs=1)
        else:
            benchmark.main()
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
