"""Calls to many: everybody in a group, or whoever has the least to do."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from hisock import HiSockClient, HiSockServer, Limits
from hisock.errors import ConversionError, Overloaded, RemoteError, UnknownGroup

from . import Net, Record, Thread


def _meet(net: Net, *names: str) -> tuple[HiSockServer, dict[str, HiSockClient]]:
    """A server and clients of these names, all red."""
    server = net.server()
    net.turn(server)
    clients = {}
    for count, name in enumerate(names, 1):
        clients[name] = net.client(server, name, "red")
        net.expect_members(server, count)
    return server, clients


def _names(members: Any) -> list[str]:
    return sorted(client["name"] for client in members)


def test_call_group_asks_everybody(compact: Net) -> None:
    """``(client, reply)`` as they come; ``exclude`` leaves one or several out."""
    server, clients = _meet(compact, "ann", "bea", "cleo")
    for name, client in clients.items():
        client.on("who")(lambda message, name=name: f"{name} {message}")
    compact.turn()

    def ask(**options: Any) -> list[tuple[str, str]]:
        calls = server.call_group("red", "who", "?", type=str, **options)
        replies = sorted((client["name"], reply) for client, reply in calls)
        assert (calls.missing, calls.failed) == ([], [])
        return replies

    assert ask() == [("ann", "ann ?"), ("bea", "bea ?"), ("cleo", "cleo ?")]
    assert ask(exclude="bea") == [("ann", "ann ?"), ("cleo", "cleo ?")]
    assert ask(exclude=["ann", server.client("cleo")]) == [("bea", "bea ?")]


def test_call_group_tells_who_failed_and_who_is_missing(compact: Net) -> None:
    """After the iteration; the replies of the others are not held up."""
    server, clients = _meet(compact, "ann", "bea", "cleo", "dora")
    got, go_on = Record(), threading.Event()

    def hold() -> None:
        got("held")
        go_on.wait(5)

    clients["ann"].on("it")(lambda: "fine")
    clients["bea"].on("it", threaded=True)(hold)
    clients["dora"].on("it")(lambda: "not a number")
    compact.turn()
    calls = server.call_group("red", "it", timeout=0.1)
    first = next(calls)
    assert (first[0]["name"], first[1]) in [("ann", "fine"), ("dora", "not a number")]
    assert len(list(calls)) == 1
    go_on.set()
    assert got.next() == "held"
    assert _names(calls.missing) == ["bea"]
    ((failed, error),) = calls.failed
    assert failed["name"] == "cleo"
    assert isinstance(error, RemoteError)
    assert error.code == "unknown_command"


def test_call_group_converts_for_each(compact: Net) -> None:
    """A reply that does not fit counts as failed, not for the others."""
    server, clients = _meet(compact, "ann", "bea")
    clients["ann"].on("it")(lambda: 5)
    clients["bea"].on("it")(lambda: "five")
    compact.turn()
    calls = server.call_group("red", "it", type=int)
    assert [reply for _, reply in calls] == [5]
    ((failed, error),) = calls.failed
    assert failed["name"] == "bea"
    assert isinstance(error, ConversionError)


def test_call_group_of_nobody(compact: Net) -> None:
    """Is no error, and over at once; also through a live handle."""
    server, _ = _meet(compact, "ann")
    for calls in (
        server.call_group("blue", "it"),
        server.group("blue").call("it"),
        server.call_group("red", "it", exclude="ann"),
    ):
        assert list(calls) == []
        assert (calls.missing, calls.failed) == ([], [])


def test_a_member_that_leaves_has_failed(compact: Net) -> None:
    """Nobody waits for it."""
    server, clients = _meet(compact, "ann", "bea")
    got, go_on = Record(), threading.Event()

    def hold() -> None:
        got("held")
        go_on.wait(5)

    clients["ann"].on("it")(lambda: "fine")
    clients["bea"].on("it", threaded=True)(hold)
    compact.turn()
    calls = server.call_group("red", "it")
    asking = Thread(list, calls)
    assert got.next() == "held"
    server.disconnect_client("bea")
    assert len(asking.result()) == 1
    go_on.set()
    ((failed, error),) = calls.failed
    assert failed["name"] == "bea"
    assert isinstance(error, ConnectionError)


def test_call_any_picks_who_has_the_least_to_do(compact: Net) -> None:
    """A work queue: who still works on something is asked last."""
    server, clients = _meet(compact, "ann", "bea")
    got, go_on = Record(), threading.Event()

    def hold() -> None:
        got("held")
        go_on.wait(5)

    for name, client in clients.items():
        client.on("work")(lambda message, name=name: name)
        client.on("hold", threaded=True)(hold)
    compact.turn()
    for busy, idle in (("ann", "bea"), ("bea", "ann")):
        go_on.clear()
        holding = Thread(server.call_client, busy, "hold")
        assert got.next() == "held"
        assert [server.call_any("red", "work") for _ in range(3)] == [idle] * 3
        go_on.set()
        holding.result()


def test_call_any_of_nobody(compact: Net) -> None:
    """There is nobody who could answer: a ``TypeError``, as for a send."""
    server, _ = _meet(compact, "ann")
    with pytest.raises(TypeError) as caught:
        server.call_any("blue", "it")
    assert isinstance(caught.value, UnknownGroup)


def test_a_call_is_refused_where_too_many_are_open(compact: Net) -> None:
    """So that nobody can pile them up on a client that does not answer."""
    server = compact.server(limits=Limits(requests=2))
    got, go_on = Record(), threading.Event()

    def hold() -> None:
        got("held")
        go_on.wait(5)

    client = compact.client(server, "ann")
    client.on("hold", threaded=True, concurrency=4)(hold)
    compact.turn()
    compact.expect_members(server, 1)
    holding = [Thread(server.call_client, "ann", "hold") for _ in range(2)]
    assert got.take(2) == ["held", "held"]
    with pytest.raises(Overloaded):
        server.call_client("ann", "hold")
    assert server.stats()["open_calls"] == 2
    go_on.set()
    for thread in holding:
        thread.result()
    assert server.stats()["open_calls"] == 0
