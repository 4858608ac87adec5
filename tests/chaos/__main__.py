"""The long proof: ``python -m tests.chaos --messages 1000000 --cuts 1000``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from random import SystemRandom

from .cuts import ALL
from .faces import CLIENTS, SERVERS
from .oracle import Outcome, Plan, prove


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and say what came of it; 1 if anything is not as promised."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000, help="both ways")
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument(
        "--silences", type=int, help="cuts that only silence tells; default 1 in 20"
    )
    parser.add_argument(
        "--kinds", nargs="*", choices=ALL, default=[], help="only these"
    )
    parser.add_argument("--seed", type=int, help="default: drawn")
    parser.add_argument("--client", choices=CLIENTS, default="blocking")
    parser.add_argument("--server", choices=SERVERS, default="plain")
    parser.add_argument("--dead-after", type=float, default=2.0, metavar="SECONDS")
    args = parser.parse_args(arguments)
    seed = SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    print(f"seed {seed}: {args.client} client, {args.server} server", flush=True)
    plan = Plan(
        args.messages,
        args.cuts,
        seed,
        args.server,
        args.client,
        kinds=tuple(args.kinds),
        silences=args.cuts // 20 if args.silences is None else args.silences,
        dead_after=args.dead_after,
        report=lambda line: print(line, flush=True),
    )
    outcome = prove(plan)
    _tell(outcome)
    is_whole = outcome.sent == outcome.received == args.messages // 2 * 2
    if outcome.is_clean and is_whole and outcome.cuts >= args.cuts:
        return 0
    print(f"FAILED; again with --seed {seed}", flush=True)
    return 1


def _tell(outcome: Outcome) -> None:
    for field in fields(outcome):
        if field.name != "failures":
            print(f"{field.name:>15} {getattr(outcome, field.name)}")
    for failure in outcome.failures:
        print("!", failure)


if __name__ == "__main__":
    sys.exit(main())
