"""Members: groups that a server makes, and what it knows of each client."""

from __future__ import annotations

from typing import Any

import pytest

from hisock import AsyncClientInfo, ClientInfo, HiSockClient, HiSockServer
from hisock.errors import InvalidName, InvalidOption, UnknownClient, UnknownGroup

from . import Net, Record, bare, eventually


def _meet(
    net: Net, *names: str
) -> tuple[HiSockServer, dict[str, HiSockClient], Record]:
    """A server and clients of these names; what each is told with ``say``."""
    server, got = net.server(), Record()
    clients = {}
    for count, name in enumerate(names, 1):
        clients[name] = net.client(server, name, "own" if name == "ann" else None)
        clients[name].on("say")(lambda message, name=name: got(name, message))
        net.turn()
        net.expect_members(server, count)
    return server, clients, got


def test_a_client_may_be_in_many_groups(net: Net) -> None:
    """Beside its own, which ``change_group`` alone replaces."""
    server, clients, got = _meet(net, "ann", "bea")
    for group in ("red", "blue"):
        server.join_group("ann", group)
    server.join_group("bea", "red")
    server.join_group("bea", "red")
    ann = server.client("ann")
    assert ann.groups == {"own", "red", "blue"}
    assert ann["group"] == "own"
    server.send_group("red", "say", b"to red")
    assert sorted(got.take(2)) == [("ann", b"to red"), ("bea", b"to red")]
    clients["ann"].change_group("new")
    eventually(lambda: ann["group"] == "new")
    assert ann.groups == {"new", "red", "blue"}
    server.leave_group("ann", "red")
    server.send_group("red", "say", b"again")
    assert got.next() == ("bea", b"again")
    server.leave_group("bea", "red")
    with pytest.raises(UnknownGroup):
        server.send_group("red", "say", b"x")
    server.leave_group("bea", "red")


def test_group_is_a_live_handle(net: Net) -> None:
    """That may be empty: iteration, ``len``, ``in``, sends, and data of its own."""
    server, clients, got = _meet(net, "ann", "bea")
    red = server.group("red")
    assert (len(red), list(red), "ann" in red, bool(red)) == (0, [], False, True)
    red.send("say", b"to nobody")
    server.join_group("ann", "red")
    server.join_group("bea", "red")
    assert [who["name"] for who in red] == ["ann", "bea"]
    assert (len(red), "ann" in red, server.client("bea") in red) == (2, True, True)
    assert "nobody" not in red
    red.send("say", b"both")
    assert sorted(got.take(2)) == [("ann", b"both"), ("bea", b"both")]
    red.send("say", b"one", exclude="ann")
    assert got.next() == ("bea", b"one")
    red.data["score"] = 3
    assert server.group("red").data == {"score": 3}
    clients["ann"].close()
    net.expect_members(server, 1)
    assert [who["name"] for who in red] == ["bea"]
    assert "red" in repr(bare(red))


@pytest.mark.parametrize("name", [5, b"red", "x" * 300, "a\nb"])
def test_what_is_no_group_is_refused(hand: Net, name: Any) -> None:
    """In every call that takes one."""
    server = hand.server()
    for call in (
        lambda: server.group(name),
        lambda: server.join_group("ann", name),
        lambda: server.leave_group("ann", name),
    ):
        with pytest.raises(InvalidName):
            call()
    with pytest.raises(InvalidOption):
        server.group(None)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(UnknownClient):
        server.join_group("ann", "red")


def test_exclude_leaves_one_or_several_out(net: Net) -> None:
    """In every send to many, by every way to say who."""
    server, _, got = _meet(net, "ann", "bea", "cleo")
    for name in ("ann", "bea", "cleo"):
        server.join_group(name, "red")
    ann = server.client("ann")
    server.send_all_clients("say", b"1", exclude="bea")
    assert sorted(got.take(2)) == [("ann", b"1"), ("cleo", b"1")]
    server.send_all_clients("say", b"2", exclude=[ann, "cleo"])
    assert got.next() == ("bea", b"2")
    server.send_group("red", "say", b"3", exclude=ann["ip"])
    assert sorted(got.take(2)) == [("bea", b"3"), ("cleo", b"3")]
    server.send_group_raw("red", b"say 4", exclude=(ann, server.client("bea")))
    assert got.next() == ("cleo", b"4")
    server.send_all_clients("say", b"5", exclude=["ann", "bea", "cleo"])
    server.send_all_clients("say", b"6")
    assert sorted(got.take(3)) == [("ann", b"6"), ("bea", b"6"), ("cleo", b"6")]


def _all_of(client: ClientInfo) -> dict[str, Any]:
    return {
        "id": client.id,
        "peer": client.peer,
        "groups": client.groups,
        "data": dict(client.data),
        "wire": client.wire,
        "server": client.server,
    }


def test_what_a_server_knows_of_a_client(net: Net) -> None:
    """The same in ``join`` and, all still filled in, in ``leave``."""
    server, got = net.server(), Record()

    @server.on("join")
    def join(client: ClientInfo) -> None:
        client.data["score"] = 1
        got(_all_of(client), client.is_connected)

    @server.on("leave")
    def leave(client: ClientInfo) -> None:
        got(_all_of(client), client.is_connected)

    client = net.client(server, "ann", "red")
    net.turn()
    joined, is_connected = got.next()
    assert is_connected
    assert joined == {
        "id": joined["id"],
        "peer": client.get_client_addr(),
        "groups": {"red"},
        "data": {"score": 1},
        "wire": net.spoken,
        "server": bare(server),
    }
    server.join_group("ann", "blue")
    client.close()
    left, is_connected = got.next()
    assert not is_connected
    assert left == {**joined, "groups": {"red", "blue"}}


def test_no_two_clients_have_one_id(net: Net) -> None:
    """Also one after the other; iterating over a server gives them in order."""
    server, clients, _ = _meet(net, "ann", "bea")
    assert [who["name"] for who in server] == ["ann", "bea"]
    ids = {who.id for who in server}
    clients["ann"].close()
    net.expect_members(server, 1)
    net.client(server, "cleo")
    net.expect_members(server, 2)
    ids |= {who.id for who in server}
    assert len(ids) == 3


def test_a_client_can_be_told_things(net: Net) -> None:
    """``send`` and ``disconnect`` of the object that a handler gets."""
    server, got = net.server(), Record()
    kept: list[ClientInfo] = []

    @server.on("ask")
    def ask(who: ClientInfo, message: bytes) -> None:
        kept.append(who)
        who.send("answer", message)

    @server.on("end")
    def end(who: ClientInfo) -> None:
        who.send("last", b"words")
        who.disconnect(reason="enough")

    server.on("leave")(lambda who: got("left", who.is_connected))
    client = net.client(server, "ann")
    client.on("answer")(lambda message: got(message))
    client.on("last")(lambda message: got(message))
    client.on("force_disconnect")(lambda: got("told"))
    net.turn()
    client.send("ask", b"x")
    assert got.next() == b"x"
    kept[0].send("answer", b"later")
    assert got.next() == b"later"
    client.send("end")
    seen = got.take(3)
    assert [one for one in seen if one != ("left", False)] == [b"words", "told"]
    with pytest.raises(UnknownClient):
        kept[0].send("answer", b"x")


def test_coroutines_get_the_same_client_with_awaitable_verbs(net: Net) -> None:
    """It compares, hashes and remembers as the one of plain handlers."""
    server, got = net.server(), Record()
    server.on("plain")(lambda who: got(who))

    @server.on("coroutine")
    async def coroutine(who: Any) -> None:
        await who.send("answer", b"x")
        got(who)

    client = net.client(server, "ann")
    client.on("answer")(lambda message: got(message))
    net.turn()
    client.send("plain")
    plain = got.next()
    client.send("coroutine")
    seen = got.take(2)
    assert b"x" in seen
    (awaitable,) = (one for one in seen if one != b"x")
    assert type(plain) is ClientInfo
    assert type(awaitable) is AsyncClientInfo
    assert dict(plain) == dict(awaitable)
    assert plain == awaitable
    assert awaitable == plain
    assert not plain != awaitable  # noqa: SIM202  # the operator itself
    assert {plain: 1}[awaitable] == 1
    plain.data["x"] = 1
    assert awaitable.data == {"x": 1}
    assert (plain.id, plain.wire) == (awaitable.id, awaitable.wire)
    client.change_name("bea")
    eventually(lambda: awaitable["name"] == "bea")
    assert plain["name"] == "bea"
    other = server.client("bea")
    assert other == plain
    assert server.get_client(awaitable) == server.get_client(plain)


def test_a_coroutine_may_end_its_client(net: Net) -> None:
    """``await who.disconnect()`` says goodbye after what was sent before."""
    server, got = net.server(), Record()

    @server.on("end")
    async def end(who: Any) -> None:
        await who.send("last", b"words")
        await who.disconnect()

    server.on("leave")(lambda: got("left"))
    client = net.client(server, "ann")
    client.on("last")(lambda message: got(message))
    client.on("force_disconnect")(lambda: got("told"))
    net.turn()
    client.send("end")
    seen = got.take(3)
    assert [one for one in seen if one != "left"] == [b"words", "told"]
