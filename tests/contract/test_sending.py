"""Sends: to whom they go, in which order, and that they arrive as they are."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from hisock import ClientInfo, HiSockClient, HiSockServer
from hisock.errors import UnknownClient, UnknownGroup

from . import Net, Record, eventually


def _meet(net: Net, *names: str) -> tuple[HiSockServer, dict[str, HiSockClient]]:
    """A server and clients of these names, each in the group of its first letter."""
    server = net.server()
    clients = {}
    for count, name in enumerate(names, 1):
        clients[name] = net.client(server, name, name[0])
        net.turn(server)
        net.expect_members(server, count)
    return server, clients


def _ways_to_say(server: HiSockServer, client: HiSockClient) -> list[Any]:
    """All that may stand for a client in a call of the server."""
    ip, port = client.get_client_addr()
    found = [info for info in server.clients.values() if info["ip"] == (ip, port)]
    name = client.name
    assert name is not None
    return [name, f"{ip}:{port}", (ip, port), *found, server.get_client((ip, port))]


def test_every_way_to_name_a_client(net: Net) -> None:
    """A name, "ip:port", a tuple, a handler's object and ``get_client``'s dict."""
    server, clients = _meet(net, "ann", "bea")
    got = Record()
    for name, client in clients.items():
        client.on("to")(lambda message, name=name: got(name, message))
    net.turn()
    ways = _ways_to_say(server, clients["bea"])
    assert len(ways) == 5
    for index, way in enumerate(ways):
        server.send_client(way, "to", index)
    assert got.take(5) == [("bea", net.as_sent(index)) for index in range(5)]


def test_a_handler_may_answer_who_it_was_given(net: Net) -> None:
    """The object that a handler gets stands for that client, at once and later."""
    server, got = net.server(), Record()
    kept: list[ClientInfo] = []

    @server.on("ask")
    def ask(client: ClientInfo, message: bytes) -> None:
        kept.append(client)
        server.send_client(client, "answer", message)

    client = net.client(server)
    client.on("answer")(lambda message: got(message))
    net.turn()
    client.send("ask", b"now")
    assert got.next() == b"now"
    server.send_client(kept[0], "answer", b"later")
    assert got.next() == b"later"


def test_send_client_raw(net: Net) -> None:
    """Content without a command goes to ``recv_raw``, by every way to say who."""
    server, clients = _meet(net, "ann")
    net.turn(server)
    ways = _ways_to_say(server, clients["ann"])
    for index, way in enumerate(ways):
        server.send_client_raw(way, b"raw %d" % index)
    received = [clients["ann"].recv_raw() for _ in ways]
    assert received == [b"raw %d" % index for index in range(len(ways))]


def test_send_group_and_send_group_raw(net: Net) -> None:
    """Everybody in a group gets it, and nobody else."""
    server, clients = _meet(net, "red one", "red two", "blue one")
    got = Record()
    for name, client in clients.items():
        client.on("say")(lambda message, name=name: got(name, message))
    server.send_group("r", "say", b"red")
    server.send_group_raw("r", b"raw red")
    server.send_all_clients("say", b"all")
    for name in ("red one", "red two"):
        assert clients[name].recv_raw() == b"raw red"
    net.turn()
    assert sorted(got.take(5)) == [
        ("blue one", b"all"),
        ("red one", b"all"),
        ("red one", b"red"),
        ("red two", b"all"),
        ("red two", b"red"),
    ]


def test_groups_follow_the_clients(net: Net) -> None:
    """Who changes group, or leaves, is in the group no longer."""
    server, clients = _meet(net, "ann", "amy")
    server.on("group_change")(lambda *arguments: None)
    server.on("leave")(lambda client: None)
    got = Record()
    clients["ann"].on("say")(lambda message: got(message))
    net.turn()
    clients["ann"].change_group("z")
    eventually(lambda: len(server.get_group("a")) == 1)
    server.send_group("z", "say", b"to z")
    assert got.next() == b"to z"
    clients["amy"].close()
    net.expect_members(server, 1)
    with pytest.raises(UnknownGroup):
        server.send_group("a", "say", b"x")


def test_sends_to_nobody(net: Net) -> None:
    """A group without members is a ``TypeError``; all of nobody is fine."""
    server = net.server()
    server.send_all_clients("say", b"x")
    for call in (
        lambda: server.send_group("red", "say", b"x"),
        lambda: server.send_group_raw("red", b"x"),
        lambda: server.get_group("red"),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert isinstance(caught.value, UnknownGroup)


def test_several_of_one_name(net: Net) -> None:
    """Then the oldest gets it, and a ``UserWarning`` tells who that is."""
    server, got = net.server(), Record()
    twins = []
    for count in (1, 2):
        twins.append(net.client(server, "ann"))
        net.turn(server)
        net.expect_members(server, count)
    for index, twin in enumerate(twins):
        twin.on("to")(lambda message, index=index: got(index, message))
    net.turn()
    with pytest.warns(UserWarning, match="2 clients have the name 'ann'"):
        server.send_client("ann", "to", b"x")
    assert got.next() == (0, b"x")
    with pytest.warns(UserWarning, match="2 clients"):
        server.send_client_raw("ann", b"to raw")
    assert got.next() == (0, b"raw")
    with pytest.warns(UserWarning, match="2 clients"):
        assert server.get_client("ann")["ip"] == twins[0].get_client_addr()
    server.send_client(twins[1].get_client_addr(), "to", b"y")
    assert got.next() == (1, b"y")


def test_a_name_that_is_free_again_no_longer_warns(net: Net) -> None:
    """Once the oldest has left, the next one has the name for itself."""
    server, got = net.server(), Record()
    twins = []
    for count in (1, 2):
        twins.append(net.client(server, "ann"))
        net.turn(server)
        net.expect_members(server, count)
    twins[1].on("to")(lambda message: got(message))
    net.turn()
    twins[0].close()
    net.expect_members(server, 1)
    server.send_client("ann", "to", b"x")
    assert got.next() == b"x"


def test_order_is_kept_to_the_server(net: Net) -> None:
    """A client's messages run one after the other, as they were sent."""
    server, got = net.server(), Record()
    server.on("odd")(lambda client, message: got(int(message)))
    server.on("even")(lambda client, message: got(int(message)))
    client = net.client(server)
    net.turn()
    for number in range(500):
        client.send(("even", "odd")[number % 2], number)
    assert got.take(500) == list(range(500))


def test_order_is_kept_to_the_client(net: Net) -> None:
    """Also between sends to one, to a group and to all."""
    server, clients = _meet(net, "ann")
    got = Record()
    clients["ann"].on("it")(lambda message: got(int(message)))
    net.turn()
    for number in range(0, 300, 3):
        server.send_client("ann", "it", number)
        server.send_group("a", "it", number + 1)
        server.send_all_clients("it", number + 2)
    assert got.take(300) == list(range(300))


def test_renames_take_effect_in_order(net: Net) -> None:
    """A message sent before a rename is handled under the old name."""
    server, got = net.server(), Record()
    server.on("who")(lambda client: got(client["name"]))
    client = net.client(server, "one")
    net.turn()
    client.send("who")
    client.change_name("two")
    client.send("who")
    client.change_name(None)
    client.send("who")
    assert got.take(3) == ["one", "two", None]


def test_a_name_is_found_once_it_has_changed(net: Net) -> None:
    """Look-ups know the new name, and no longer the old one."""
    server, got = net.server(), Record()
    server.on("name_change")(lambda client, old, new: got(new))
    client = net.client(server, "one")
    net.turn()
    client.change_name("two")
    assert got.next() == "two"
    assert server.get_client("two")["ip"] == client.get_client_addr()
    with pytest.raises(UnknownClient):
        server.get_client("one")


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 65_536, 1_000_003])
def test_any_size_arrives_whole(hand: Net, size: int) -> None:
    """Short or long, in both directions, with any byte in it."""
    server, got = hand.server(), Record()
    client = hand.client(server, "ann")
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]

    @server.on("echo")
    def echo(who: ClientInfo, message: bytes) -> None:
        server.send_client(who, "back", message)

    client.on("back")(lambda message: got(message))
    hand.turn()
    client.send("echo", content)
    assert got.next() == content


@pytest.mark.parametrize("header_len", [3, 8, 64])
def test_both_sides_may_agree_on_another_header(net: Net, header_len: int) -> None:
    """``header_len`` may be anything from 2 to 64; the attribute tells it."""
    server, got = net.server(header_len=header_len), Record()
    client = net.client(server, header_len=header_len)
    assert (server.header_len, client.header_len) == (header_len, header_len)
    server.on("up")(lambda who, message: server.send_client(who, "down", message))
    client.on("down")(lambda message: got(message))
    net.turn()
    client.send("up", b"x" * 500)
    assert got.next() == b"x" * 500


def test_a_client_with_another_header_is_served(net: Net) -> None:
    """The server learns the length from the hello of each client."""
    server, got = net.server(), Record()
    server.on("up")(lambda who, message: server.send_client(who, "down", message))
    for header_len in (3, 16, 40):
        client = net.client(server, header_len=header_len)
        client.on("down")(lambda message: got(message))
        net.turn()
        client.send("up", header_len)
        # Under 4 there is no room for our hello, so the wire is that of 1.1.
        is_typed = net.is_websocket or (net.is_compact and header_len >= 4)
        assert got.next() == (header_len if is_typed else b"%d" % header_len)


def test_many_clients(net: Net) -> None:
    """Each client gets its own answers."""
    server, got = net.server(), Record()
    server.on("who am i")(lambda who: server.send_client(who, "you", who["name"]))
    clients = [net.client(server, f"client {index}") for index in range(12)]
    for client in clients:
        expected = net.as_sent(client.name)
        client.on("you")(lambda message, name=expected: got(name == message))
    net.turn()
    for client in clients:
        client.send("who am i")
    assert got.take(len(clients)) == [True] * len(clients)


def test_content_may_be_left_out(net: Net) -> None:
    """A command alone has empty content."""
    server, got = net.server(), Record()
    server.on("ping")(lambda who, message: got(message))
    client = net.client(server)
    client.on("pong")(lambda message: got(message))
    net.turn()
    client.send("ping")
    assert got.next() == b""
    server.send_all_clients("pong")
    assert got.next() == b""


def test_batch_sends_all_of_it(net: Net) -> None:
    """What is sent inside ``with client.batch()`` arrives whole and in order."""
    server, got = net.server(), Record()
    server.on("it")(lambda who, message: got(int(message)))
    client = net.client(server)
    net.turn()
    with client.batch():
        client.send("it", 0)
        with client.batch():
            client.send("it", 1)
        client.send("it", 2)
    client.send("it", 3)
    assert got.take(4) == [0, 1, 2, 3]


def test_a_batch_that_raises_sends_what_it_had(net: Net) -> None:
    """An exception inside the block loses nothing, and comes out."""
    server, got = net.server(), Record()
    server.on("it")(lambda who, message: got(int(message)))
    client = net.client(server)
    net.turn()

    def send_and_fail() -> None:
        with client.batch():
            client.send("it", 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        send_and_fail()
    client.send("it", 1)
    assert got.take(2) == [0, 1]


def test_batch_keeps_the_order_of_names_too(net: Net) -> None:
    """A change of name inside a batch stands between its neighbours."""
    server, got = net.server(), Record()
    server.on("who")(lambda client: got(client["name"]))
    client = net.client(server, "one")
    net.turn()
    with client.batch():
        client.send("who")
        client.change_name("two")
        client.send("who")
    assert got.take(2) == ["one", "two"]


def test_a_second_thread_may_send_during_a_batch(net: Net) -> None:
    """What another thread sends meanwhile arrives, once and whole."""
    server, got = net.server(), Record()
    server.on("it")(lambda who, message: got(int(message)))
    client = net.client(server)
    net.turn()
    with client.batch():
        client.send("it", 0)
        other = threading.Thread(target=client.send, args=("it", 1))
        other.start()
        other.join()
    assert sorted(got.take(2)) == [0, 1]


def test_nothing_is_ever_printed(net: Net, capfd: pytest.CaptureFixture[str]) -> None:
    """A library has no business on the user's terminal."""
    server, got = net.server(), Record()
    server.on("it")(lambda who, message: got(message))
    server.on("leave")(lambda who: got("left"))
    client = net.client(server, "ann")
    client.on("force_disconnect")(lambda: got("told"))
    net.turn()
    client.send("it", b"x")
    assert got.next() == b"x"
    server.disconnect_client("ann")
    assert sorted(got.take(2)) == ["left", "told"]
    net.close()
    assert capfd.readouterr() == ("", "")
