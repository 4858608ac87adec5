"""``python -m bench``: every benchmark; ``--smoke`` only whether they run."""

from __future__ import annotations

import argparse
import time

from bench import one_way, ping_pong, single_send

_ALL = {"one_way": one_way, "ping_pong": ping_pong, "single_send": single_send}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("only", nargs="*", choices=[[], *_ALL], help="default: all")
    parser.add_argument("--smoke", action="store_true", help="small and quick")
    chosen = parser.parse_args()
    began = time.perf_counter()
    for name, benchmark in _ALL.items():
        if chosen.only and name not in chosen.only:
            continue
        if chosen.smoke:
            benchmark.main(amount=2_000, runs=1)
        else:
            benchmark.main()
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
