"""The whiteboard of ``hisock demo``, with Python programs in the place of pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from hisock import HiSockClient, ThreadedHiSockServer, connect, start_threaded_server
from hisock.cli import board as module
from hisock.cli.board import Board

PATIENCE = 10.0


@pytest.fixture
def server() -> Iterator[ThreadedHiSockServer]:
    """A server that has a board and nothing else."""
    board = Board()
    server = start_threaded_server(("127.0.0.1", 0))
    server.use(board.handlers)
    server.every(1 / 30)(lambda: board.show_pointers(server))
    with server:
        yield server


@pytest.fixture
def look(server: ThreadedHiSockServer) -> Iterator[Callable[[str], HiSockClient]]:
    """Come to the board under a name; it is shown at once."""
    with ExitStack() as stack:

        def look(name: str) -> HiSockClient:
            client = stack.enter_context(
                connect(server.addr, name=name, reconnect=False)
            )
            client.send("look")
            return client

        yield look


def piece(stroke: int, *points: tuple[float, float], **more: Any) -> dict[str, Any]:
    """A piece of a stroke, as a page sends it."""
    return {"stroke": stroke, "ink": 1, "width": 5, "points": points} | more


def get(client: HiSockClient, command: str) -> Any:
    """What comes next of a command."""
    return client.recv(command, timeout=PATIENCE)


def strokes_of(client: HiSockClient) -> list[Any]:
    """The board, looked at anew."""
    client.send("look")
    strokes: list[Any] = get(client, "board")["strokes"]
    return strokes


def test_what_one_draws_the_others_get(look: Callable[[str], HiSockClient]) -> None:
    """The pieces of a stroke go to all others, and are one for who comes later."""
    ann, bob = look("ann"), look("bob")
    you = get(ann, "board")["you"]
    assert get(bob, "board")["strokes"] == []

    ann.send("piece", piece(1, (0, 0), (10.04, 20)))
    ann.send("piece", piece(1, (30, 40)))

    first = {"key": [you, 1], "ink": 1, "width": 5, "points": [[0, 0], [10, 20]]}
    assert get(bob, "piece") == first
    assert get(bob, "piece") == first | {"points": [[30, 40]]}
    assert strokes_of(ann) == [first | {"points": [[0, 0], [10, 20], [30, 40]]}]


def test_strange_numbers_stay_on_the_board(look: Callable[[str], HiSockClient]) -> None:
    """Whatever number a stranger sends, pages get one that they can draw."""
    ann, bob = look("ann"), look("bob")
    get(bob, "board")

    ann.send("piece", piece(1))
    ann.send("piece", piece(1, *[(1, 1)] * 501))
    strange = [(math.nan, -1.0), (math.inf, 1e300)]
    ann.send("piece", piece(2, *strange, ink=99, width=math.nan))

    assert len(get(bob, "piece")["points"]) == 500
    drawn = get(bob, "piece")
    assert (drawn["ink"], drawn["width"]) == (8, 1)
    assert drawn["points"] == [[0, 0], [module.SIZE, module.SIZE]]


def test_undo_takes_the_last_of_ones_own(look: Callable[[str], HiSockClient]) -> None:
    """Undo never takes what another has drawn; clear takes everything."""
    ann, bob = look("ann"), look("bob")
    you = get(ann, "board")["you"]
    get(bob, "board")
    for number in (1, 2):
        ann.send("piece", piece(number, (1, 1)))
        get(bob, "piece")
    bob.send("piece", piece(1, (2, 2)))
    get(ann, "piece")

    for number in (2, 1):
        ann.send("undo")
        assert get(bob, "removed") == [you, number]
    ann.send("undo")
    assert len(strokes_of(ann)) == 1
    ann.send("clear")
    assert get(bob, "cleared") == "ann"
    assert strokes_of(bob) == []


def test_the_oldest_go_when_the_board_is_full(
    look: Callable[[str], HiSockClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board keeps so many points, and forgets the oldest strokes beyond that."""
    monkeypatch.setattr(module, "_MOST", 5)
    ann = look("ann")
    you = get(ann, "board")["you"]

    for number in (1, 2, 3):
        ann.send("piece", piece(number, (1, 1), (2, 2)))

    assert get(ann, "removed") == [you, 1]
    assert [stroke["key"] for stroke in strokes_of(ann)] == [[you, 2], [you, 3]]


def test_who_points_where(look: Callable[[str], HiSockClient]) -> None:
    """All see where the others point, and who has left."""
    ann, bob = look("ann"), look("bob")
    ann.send("point", (10, -5))

    def pointers(until: list[tuple[str, Any]]) -> None:
        shown: list[Any] = []
        while shown != until:
            shown = [(each["name"], each["at"]) for each in get(bob, "pointers")]

    pointers([("ann", [10, 0]), ("bob", None)])
    ann.send("point", None)
    pointers([("ann", None), ("bob", None)])
    ann.close()
    pointers([("bob", None)])
