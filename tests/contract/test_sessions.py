"""Sessions: through any cut every message arrives once and in order, and both sides
are told of the cut and of the return."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hisock import ClientInfo
from hisock.errors import WouldBlock
from tests.chaos.pipes import Direction, How

from . import Record, Thread, eventually
from .cutting import CutWay

#: Messages between two cuts.
SOME = 40


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("lost", ["messages", "acknowledgements"])
def test_a_cut_loses_nothing_and_repeats_nothing(
    cut: CutWay, lost: str, how: How
) -> None:
    """Neither where messages were on their way nor where it is only not known that
    they have arrived; and what is sent during the cut comes after them."""
    got = Record()
    cut.on("it")(lambda message: got(message))
    cut.turn()
    first = 0
    for _ in range(2):
        if lost == "messages":
            cut.hold(cut.there)
        else:
            cut.hold(cut.back)
        for number in range(first, first + SOME):
            cut.send("it", number)
        if lost == "messages":
            cut.expect_held(cut.there)
        else:
            assert got.take(SOME) == list(range(first, first + SOME))
        cut.cut(how)
        for number in range(first + SOME, first + 2 * SOME):
            cut.send("it", number)
        more = SOME if lost == "acknowledgements" else 0
        after = list(range(first + more, first + 2 * SOME))
        assert got.take(len(after)) == after
        first += 2 * SOME
    cut.send("it", "last")
    assert got.next() == "last"


def test_both_sides_are_told_of_each_cut_and_return(apart: CutWay) -> None:
    """Once each and in order; ``leave`` comes once, at the goodbye."""
    apart.turn()
    for how in ("fin", "rst", "both"):
        with apart.apart(how):
            pass
    apart.net.end(apart.client)
    assert apart.told_server.next() == "leave"
    assert not len(apart.told_client)
    assert not len(apart.told_server)
