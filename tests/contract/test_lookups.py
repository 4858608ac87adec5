"""Looking up: who is here, by which name, and what a client is to a program."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from hisock import ClientInfo, HiSockClient, HiSockServer
from hisock.errors import (
    InvalidClient,
    InvalidOption,
    Refused,
    UnknownClient,
    UnknownGroup,
)

from . import LOCALHOST, Net, Record, bare, eventually


def _meet(net: Net) -> tuple[HiSockServer, HiSockClient, HiSockClient]:
    """A server with ann of the reds and bea without a group."""
    server = net.server()
    net.turn(server)
    ann = net.client(server, "ann", "red")
    net.expect_members(server, 1)
    bea = net.client(server, "bea")
    net.expect_members(server, 2)
    return server, ann, bea


def test_get_client(net: Net) -> None:
    """A dictionary with ip, name, group and socket, for each way to say who."""
    server, ann, _ = _meet(net)
    ip, port = ann.get_client_addr()
    info = server.get_client("ann")
    assert list(info) == ["ip", "name", "group", "socket"]
    assert (info["ip"], info["name"], info["group"]) == ((ip, port), "ann", "red")
    assert net.is_websocket or isinstance(info["socket"], socket.socket)
    assert info["socket"].getpeername() == (ip, port)
    for who in (f"{ip}:{port}", (ip, port), info, server.clients[info["socket"]]):
        assert server.get_client(who) == info


def test_get_group(net: Net) -> None:
    """Such a dictionary for everybody in the group; nobody is a ``TypeError``."""
    server, _, _ = _meet(net)
    assert server.get_group("red") == [server.get_client("ann")]
    with pytest.raises(TypeError) as caught:
        server.get_group("blue")
    assert isinstance(caught.value, UnknownGroup)


def test_get_all_clients(net: Net) -> None:
    """All of them; one column of them; or those that a function picks."""
    server, ann, bea = _meet(net)
    everybody = server.get_all_clients()
    assert everybody == [server.get_client("ann"), server.get_client("bea")]
    addresses = [ann.get_client_addr(), bea.get_client_addr()]
    assert server.get_all_clients("ip") == addresses
    assert server.get_all_clients("name") == ["ann", "bea"]
    assert server.get_all_clients("group") == ["red", None]
    assert server.get_all_clients(key="socket") == [c["socket"] for c in everybody]
    reds = server.get_all_clients(lambda client: client["group"] == "red")
    assert reds == [everybody[0]]
    assert server.get_all_clients(lambda client: False) == []


def test_get_all_clients_of_nobody(net: Net) -> None:
    """An empty server gives empty lists."""
    server = net.server()
    assert server.get_all_clients() == []
    assert server.get_all_clients("name") == []
    assert server.get_all_clients(lambda client: True) == []


def test_a_wrong_key_is_told(net: Net) -> None:
    """A column that no client has is refused, with those that there are."""
    server = net.server()
    with pytest.raises(InvalidOption, match="ip, name, group or socket, not 'nmae'"):
        server.get_all_clients("nmae")


def test_what_get_client_gives_is_a_copy(net: Net) -> None:
    """Writing to the dictionary changes nothing."""
    server, _, _ = _meet(net)
    server.get_client("ann")["name"] = "mallory"
    assert server.get_all_clients("name") == ["ann", "bea"]


@pytest.mark.parametrize(
    "who",
    [
        5,
        None,
        b"ann",
        ["ann"],
        {},
        {"name": "ann"},
        (),
        ("127.0.0.1",),
        ("127.0.0.1", "6969"),
        ("127.0.0.1", 6969, 0),
        ("127.0.0.1", True),
        ("127.0.0.1", 65536),
        ("localhost!", 6969),
        ([], 5),
    ],
)
def test_what_is_no_client_is_a_value_error(hand: Net, who: Any) -> None:
    """The format is wrong, in every call that takes a client."""
    server = hand.server()
    calls: list[Any] = [
        lambda: server.get_client(who),
        lambda: server.send_client(who, "x", b""),
        lambda: server.send_client_raw(who, b""),
        lambda: server.disconnect_client(who),
    ]
    for call in calls:
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # 1.1's type
            call()
        assert isinstance(caught.value, InvalidClient)


@pytest.mark.parametrize("who", ["zoe", "127.0.0.1:1", ("127.0.0.1", 1), "", "a:b"])
def test_who_is_not_here_is_a_type_error(hand: Net, who: Any) -> None:
    """The format is right, but nobody is that."""
    server = hand.server()
    hand.client(server, "ann")
    hand.turn()
    calls: list[Any] = [
        lambda: server.get_client(who),
        lambda: server.send_client(who, "x", b""),
        lambda: server.send_client_raw(who, b""),
        lambda: server.disconnect_client(who),
    ]
    for call in calls:
        with pytest.raises(TypeError) as caught:
            call()
        assert isinstance(caught.value, UnknownClient)


def test_clients_and_clients_rev(net: Net) -> None:
    """Socket to client, and ``(ip, name, group)`` to socket."""
    server, ann, bea = _meet(net)
    by_socket = {c["socket"]: c for c in server.get_all_clients()}
    assert set(server.clients) == set(by_socket)
    for sock, info in server.clients.items():
        assert isinstance(info, ClientInfo)
        assert {**info, "socket": sock} == by_socket[sock]
    assert set(server.clients_rev) == {
        (ann.get_client_addr(), "ann", "red"),
        (bea.get_client_addr(), "bea", None),
    }
    for key, sock in server.clients_rev.items():
        assert tuple(server.clients[sock].values()) == key
    assert (len(server.clients), len(server.clients_rev)) == (2, 2)
    assert "ann" in repr(server.clients)
    assert "ann" in repr(server.clients_rev)


def test_clients_and_clients_rev_are_live(net: Net) -> None:
    """A mapping that was taken before shows who joins, changes and leaves."""
    server, got = net.server(), Record()
    server.on("name_change")(lambda: got("changed"))
    clients, reverse = server.clients, server.clients_rev
    assert (list(clients), list(reverse)) == ([], [])
    ann = net.client(server, "ann")
    net.turn()
    net.expect_members(server, 1)
    address = ann.get_client_addr()
    assert list(reverse) == [(address, "ann", None)]
    ann.change_name("bea")
    assert got.next() == "changed"
    assert list(reverse) == [(address, "bea", None)]
    assert [info["name"] for info in clients.values()] == ["bea"]
    ann.close()
    net.expect_members(server, 0)
    assert (list(clients), list(reverse)) == ([], [])


@pytest.mark.parametrize("attribute", ["clients", "clients_rev"])
def test_clients_and_clients_rev_are_read_only(net: Net, attribute: str) -> None:
    """Neither the mapping nor the attribute can be written."""
    server = net.server()
    mapping: Any = getattr(server, attribute)
    with pytest.raises(TypeError):
        mapping["x"] = 1
    with pytest.raises(TypeError):
        del mapping["x"]
    with pytest.raises(AttributeError):
        setattr(server, attribute, {})
    with pytest.raises(KeyError):
        mapping["x"]


def test_len_counts_the_clients(net: Net) -> None:
    """And an empty server is still true."""
    server = net.server()
    assert (len(server), bool(server)) == (0, True)
    client = net.client(server)
    net.turn()
    net.expect_members(server, 1)
    client.close()
    net.expect_members(server, 0)


def test_str_tells_the_address(net: Net) -> None:
    """``str`` shows the class and where the server is, on both sides."""
    server = net.server()
    client = net.client(server)
    port = server.addr[1]
    kinds = type(bare(server)).__name__, type(bare(client)).__name__
    assert str(server) == f"<{kinds[0]} serving at 127.0.0.1:{port}>"
    assert str(client) == f"<{kinds[1]} connected to 127.0.0.1:{port}>"


def test_comparisons_are_by_ip(net: Net) -> None:
    """As in 1.1: by IP address, with another of these or a string."""
    server, other = net.server(), net.server()
    client = net.client(server)
    assert server == other
    assert client == server
    assert server == f"127.0.0.1:{server.addr[1]}"
    assert server != "127.0.0.2:80"
    assert server < "127.0.0.2:80"
    assert server <= "127.0.0.2:80"
    assert server > "10.0.0.1:80"
    assert client >= "10.0.0.1:80"
    assert hash(server) == hash(other)


@pytest.mark.parametrize("other", [5, None, b"127.0.0.1:80", object(), "no address"])
def test_comparing_with_something_foreign(net: Net, other: Any) -> None:
    """Is not ours to decide: ``NotImplemented``, so unequal, and no order."""
    server = net.server()
    for peer in (server, net.client(server)):
        for method in ("__eq__", "__lt__", "__le__", "__gt__", "__ge__"):
            assert getattr(peer, method)(other) is NotImplemented
        assert peer != other
        assert not peer == other  # noqa: SIM201  # the operator itself
        with pytest.raises(TypeError):
            _ = peer < other


def test_addresses(net: Net) -> None:
    """Port 0 becomes the real one; both sides know both addresses."""
    server = net.server()
    client = net.client(server, "ann")
    net.turn()
    net.expect_members(server, 1)
    ip, port = server.get_addr()
    assert ip == LOCALHOST
    assert port > 0
    assert server.addr == client.addr == client.get_server_addr() == (ip, port)
    assert client.get_client_addr() == server.get_client("ann")["ip"]


def test_what_a_client_knows_of_itself(net: Net) -> None:
    """``name`` and ``group`` are attributes, and follow the changes."""
    client = net.client(net.server(), "ann", "red")
    if net.is_websocket:
        net.turn()
        eventually(lambda: client.wire)  # before the welcome nothing can be said
    assert (client.name, client.group) == ("ann", "red")
    client.change_name(None)
    client.change_group("blue")
    assert (client.name, client.group) == (None, "blue")
    unnamed = net.client(net.raw_listener())
    assert (unnamed.name, unnamed.group) == (None, None)


def test_a_client_asks_who_somebody_is(net: Net) -> None:
    """By name, "ip:port", tuple or dictionary; it gets ip, name and group."""
    _, ann, bea = _meet(net)
    ip, port = bea.get_client_addr()
    expected = {"ip": (ip, port), "name": "bea", "group": None}
    net.turn()
    for who in ("bea", f"{ip}:{port}", (ip, port), expected):
        assert dict(ann.get_client(who)) == expected
    assert ann.get_client("ann")["group"] == "red"


def test_a_client_asks_inside_a_handler(net: Net) -> None:
    """The wait for the answer lets nothing else run, and loses nothing."""
    server, got = net.server(), Record()
    client = net.client(server, "ann")

    @client.on("look", **net.may_wait(client))
    def look(message: str) -> None:
        got(client.get_client(message)["name"])

    client.on("after")(lambda: got("after"))
    net.turn()
    net.expect_members(server, 1)
    server.send_client("ann", "look", "ann")
    server.send_client("ann", "after")
    assert got.take(2) == ["ann", "after"]


def test_a_client_asks_for_nobody(net: Net) -> None:
    """Who is not here is a ``TypeError``, what is no client a ``ValueError``."""
    _, ann, _ = _meet(net)
    net.turn()
    with pytest.raises(TypeError) as caught:
        ann.get_client("zoe")
    assert isinstance(caught.value, UnknownClient)
    bad: Any = 5
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # 1.1's type
        ann.get_client(bad)
    assert isinstance(refused.value, InvalidClient)


def test_a_server_may_keep_it_to_itself(net: Net) -> None:
    """With ``roster=False`` nobody is told of others, asked or not."""
    server, got = net.server(roster=False), Record()
    ann = net.client(server, "ann")
    ann.on("client_connect")(lambda info: got("connect"))
    ann.on("fence")(lambda: got("fence"))
    net.turn()
    net.expect_members(server, 1)
    net.client(server, "bea")
    net.expect_members(server, 2)
    with pytest.raises(Refused, match="roster=False"):
        ann.get_client("bea")
    server.send_client("ann", "fence")
    assert got.next() == "fence"


def test_client_info(net: Net) -> None:
    """A dictionary of ip, name and group that is itself and nobody else."""
    server, got = net.server(), Record()
    server.on("join")(lambda client: got(client))
    server.on("hi")(lambda client: got(client))
    client = net.client(server, "ann", "red")
    net.turn()
    info: ClientInfo = got.next()
    address = client.get_client_addr()
    assert isinstance(info, dict)
    assert list(info) == ["ip", "name", "group"]
    assert isinstance(info["ip"], tuple)
    same = {"ip": address, "name": "ann", "group": "red"}
    assert dict(info) == same
    assert info != same
    assert not info == same  # noqa: SIM201  # the operator itself
    listed = {**same, "ip": list(address)}
    assert json.loads(json.dumps(info)) == listed
    assert {info: 1}[info] == 1
    client.send("hi")
    assert got.next() is info
    assert server.clients[server.get_client("ann")["socket"]] is info


def test_two_clients_alike_are_two(net: Net) -> None:
    """Identity, not content, tells clients apart."""
    server, got = net.server(), Record()
    server.on("join")(lambda client: got(client))
    net.client(server, "ann")
    net.client(server, "ann")
    net.turn()
    one, two = got.take(2)
    assert one != two
    assert len({one, two}) == 2


def test_a_client_is_kept_up_to_date(net: Net) -> None:
    """The object follows changes of name and group, wherever it was stored."""
    server, got = net.server(), Record()
    server.on("join")(lambda client: got(client))
    client = net.client(server, "ann")
    net.turn()
    info = got.next()
    client.change_name("bea")
    client.change_group("red")
    eventually(lambda: info["group"] == "red")
    assert info["name"] == "bea"


def test_a_client_that_left(net: Net) -> None:
    """In ``leave`` it is still filled, but in no look-up, group or count."""
    server, got = net.server(), Record()

    @server.on("leave")
    def leave(client: ClientInfo) -> None:
        got(dict(client), len(server), server.get_all_clients())
        for call in (
            lambda: server.send_client(client, "x", b""),
            lambda: server.send_client(client["ip"], "x", b""),
            lambda: server.get_client("ann"),
            lambda: server.get_group("red"),
        ):
            try:
                call()
            except TypeError as error:
                got(type(error))

    client = net.client(server, "ann", "red")
    address = client.get_client_addr()
    net.turn()
    net.expect_members(server, 1)
    client.close()
    assert got.take(5) == [
        ({"ip": address, "name": "ann", "group": "red"}, 0, []),
        UnknownClient,
        UnknownClient,
        UnknownClient,
        UnknownGroup,
    ]
