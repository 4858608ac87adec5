"""The name somebody probably meant."""

from __future__ import annotations

import random
import time

import pytest

from hisock._near import did_you_mean


@pytest.mark.parametrize(
    ("wrong", "known", "expected"),
    [
        ("mesage", ["message", "move"], " Did you mean 'message'?"),
        ("movee", iter(["message", "move"]), " Did you mean 'move'?"),
        ("message", ["message"], " Did you mean 'message'?"),
        ("zzz", ["message", "move"], ""),
        ("mesage", [], ""),
        ("", ["message"], ""),
        ("x" * 100, ["x" * 80], f" Did you mean {'x' * 80!r}?"),
    ],
)
def test_the_nearest_name_is_proposed(
    wrong: str, known: list[str], expected: str
) -> None:
    """The nearest known name stands in a sentence; nothing stands for nothing near."""
    assert expected == did_you_mean(wrong, known)


def test_a_proposal_costs_little_however_many_names_there_are() -> None:
    """A client may ask for a name that nobody has: that costs no server seconds."""
    chance = random.Random(1)
    known = ["".join(chance.choices("ab", k=80)) for _ in range(10_000)]
    began = time.perf_counter()

    did_you_mean("ab" * 40, known)

    assert time.perf_counter() - began < 0.25
