"""Addresses and the sockets made from them; the system's errors as ours."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.spelled import spelled

from hisock.engine import dial as dialing
from hisock.engine.dial import dial, listen_at, parse_address, split_uri, tune
from hisock.errors import (
    AddressInUse,
    CannotListen,
    HiSockError,
    InvalidAddress,
    PrivilegedPort,
    ServerNotRunning,
)

LOCAL = ("127.0.0.1", 0)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens at a free port."""
    with listen_at(LOCAL) as sock:
        yield sock


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """A program that has as many files open as it may."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + 1, hard))
        held: list[int] = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.dup(last.fileno()))
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for number in held:
                os.close(number)


# --- addresses -------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 0), ("", 6969), ("localhost", 65535), ("::1", 1)]
)
def test_an_address(address: tuple[str, int]) -> None:
    """A host and a port are an address."""
    assert address == parse_address(address)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:80", ("localhost", 80)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        (":6969", ("", 6969)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
    ],
)
def test_an_address_as_text(text: str, address: tuple[str, int]) -> None:
    """``"host:port"`` is the same as the pair; IPv6 stands in brackets."""
    assert address == parse_address(text)


def test_an_address_of_a_unix_socket() -> None:
    """It stays text, so that everybody sees what it is."""
    assert parse_address("unix:/run/it") == "unix:/run/it"


SHOWN = (
    'an address is ("host", port), for example ("127.0.0.1", 6969), or "host:port" '
    'or "unix:/path", not '
)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("a", -1), "port -1 is not from 0 to 65535"),
        (("a", 65536), "port 65536 is not from 0 to 65535"),
        (("a", "6969"), "the port is a whole number, not '6969'"),
        (("a", True), "the port is a whole number, not True"),
        (("a", 80.0), "the port is a whole number, not 80.0"),
        ((1, 80), SHOWN),
        (("a", 1, 2), SHOWN),
        (None, SHOWN),
        (b"a:80", SHOWN),
        ("", "'' has no port; an address is like \"127.0.0.1:6969\""),
        ("localhost", "'localhost' has no port"),
        ("localhost:", "'localhost:' has no port"),
        ("localhost:http", "'localhost:http' has no port"),
        ("localhost:-1", "'localhost:-1' has no port"),
        ("localhost:٣", "'localhost:٣' has no port"),
        ("localhost:65536", "port 65536 is not from 0 to 65535"),
        ("localhost:" + "9" * 5000, "port 99999999 is not from 0 to 65535"),
        ("::1", "'::1' is ambiguous; write an IPv6 address as \"[::1]:6969\""),
        ("::1:80", "'::1:80' is ambiguous"),
        ("[::1]", "'[::1]' has no port"),
        ("lo\0cal:80", "'lo\\x00cal' is no known host name"),
        ("unix:", "'unix:' names no file; write unix:/path/to/socket"),
        ("unix:/a\0b", "'unix:/a\\x00b' names no file"),
    ],
    ids=spelled,
)
def test_what_is_no_address(wrong: object, told: str) -> None:
    """The text tells what is wrong with it, and shows one that is right."""
    with pytest.raises(InvalidAddress) as caught:
        parse_address(wrong)

    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    "wrong",
    [
        *("ws://", "ws:///path", "ws://host/#part", "ws://host:70000/"),
        *("ws://ann@host/", "ws://:secret@host/", "ws://@host/"),
        *("ws://host/a b", "ws://host/a\nb", "ws://ho\tst/", "ws://host/\x7f"),
    ],
)
def test_an_address_of_a_websocket_that_cannot_be(wrong: str) -> None:
    """None of it is dropped in silence, as some readers of addresses do."""
    with pytest.raises(InvalidAddress):
        split_uri(wrong)


def test_the_port_of_a_websocket() -> None:
    """It has a usual one; 0 is nobody's, and not that."""
    uris = ["ws://host", "wss://host/", "ws://host:6969", "ws://host:0/"]
    assert [split_uri(uri)[1] for uri in uris] == [
        ("host", port) for port in (80, 443, 6969, 0)
    ]


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "\ud800", "a..b"])
@pytest.mark.parametrize("use", [listen_at, dial])
def test_a_host_that_is_none(use: Callable[[Any], Any], host: str) -> None:
    """A host that cannot exist is told by name, for listening and for dialing."""
    with pytest.raises(InvalidAddress, match="is no address and no known host name"):
        use((host, 6969))


# --- listening -------------------------------------------------------------------


def test_a_free_port_is_found(listener: socket.socket) -> None:
    """Port 0 takes a free one; the socket never waits."""
    assert listener.getsockname()[1] > 0
    assert not listener.getblocking()
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_no_host_is_all_of_them() -> None:
    """An empty host listens at every IPv4 address, as in 1.1."""
    with listen_at(("", 0)) as sock:
        assert (sock.family, sock.getsockname()[0]) == (socket.AF_INET, "0.0.0.0")
        dial(("127.0.0.1", sock.getsockname()[1])).close()


def test_ipv6(request: pytest.FixtureRequest) -> None:
    """An IPv6 address is listened at and dialed."""
    try:
        sock = listen_at(("::1", 0))
    except CannotListen:
        pytest.skip("this system has no IPv6")
    with sock, dial(("::1", sock.getsockname()[1])) as caller:
        assert caller.family == socket.AF_INET6


def test_a_port_in_use(listener: socket.socket) -> None:
    """A port that somebody has is told, with what to do, and as the system's error."""
    address = listener.getsockname()
    with pytest.raises(AddressInUse) as caught:
        listen_at(address)

    told = f"port {address[1]} is in use at 127.0.0.1:{address[1]}; close the other pro"
    assert str(caught.value).startswith(told)
    assert caught.value.errno == errno.EADDRINUSE
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_port_can_be_taken_again() -> None:
    """After a server ended, the next one gets its port at once."""
    with listen_at(LOCAL) as first:
        address = first.getsockname()
        caller = dial(address)
        first.setblocking(True)
        first.accept()[0].close()
    caller.close()

    listen_at(address).close()


def test_an_address_of_another_machine() -> None:
    """An address that is not this machine's is told, with those that are."""
    # 192.0.2.1 is reserved for documentation (RFC 5737).
    with pytest.raises(CannotListen) as caught:
        listen_at(("192.0.2.1", 0))

    told = "192.0.2.1 is no address of this machine; use hisock.get_local_ip(), "
    assert str(caught.value).startswith(told)
    assert (errno.EADDRNOTAVAIL, CannotListen) == (
        caught.value.errno,
        type(caught.value),
    )


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        (errno.EADDRINUSE, AddressInUse, "port 80 is in use at 1.2.3.4:80"),
        (10048, AddressInUse, "port 80 is in use at 1.2.3.4:80"),
        (errno.EACCES, PrivilegedPort, "the system does not let this program listen"),
        (errno.EPERM, PrivilegedPort, "take a port from 1024 up"),
        (10013, PrivilegedPort, "take a port from 1024 up"),
        (errno.ENOBUFS, CannotListen, "cannot listen at 1.2.3.4:80: no room"),
    ],
)
def test_what_the_system_has_against_it(
    number: int, kind: type[CannotListen], told: str
) -> None:
    """Each of the system's numbers, Windows' too, becomes an error with a remedy."""
    mapped = dialing._cannot_listen(("1.2.3.4", 80), OSError(number, "no room"))

    assert (kind, number) == (type(mapped), mapped.errno)
    assert told in str(mapped)


# --- dialing ---------------------------------------------------------------------


def test_a_server_is_dialed(listener: socket.socket) -> None:
    """Whoever listens there is connected to."""
    with dial(listener.getsockname()) as caller:
        assert listener.getsockname() == caller.getpeername()


def test_a_host_name_is_dialed(listener: socket.socket) -> None:
    """A name with several addresses leads to the one where somebody listens."""
    with dial(("localhost", listener.getsockname()[1])) as caller:
        assert listener.getsockname() == caller.getpeername()


def test_nobody_is_there(listener: socket.socket) -> None:
    """A port where nobody listens is told, with what to do; nothing stays open."""
    address = listener.getsockname()
    listener.close()

    with pytest.raises(ServerNotRunning) as caught:
        dial(address)

    told = f"no server is running at 127.0.0.1:{address[1]}; start it first, or check"
    assert str(caught.value).startswith(told)
    assert caught.value.errno == errno.ECONNREFUSED
    assert isinstance(caught.value, ConnectionError)


def test_port_0_is_no_servers() -> None:
    """Port 0 is for listening only."""
    with pytest.raises(
        InvalidAddress, match=r"port 0 at 127\.0\.0\.1:0 is no server's"
    ):
        dial(LOCAL)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            ConnectionRefusedError(111, "x"),
            "no server is running at h:1; start it first",
        ),
        (TimeoutError("x"), "nobody answered at h:1 within 10 s; check the address"),
        (OSError(101, "unreachable"), "cannot reach h:1: unreachable"),
        (OSError("odd"), "cannot reach h:1: odd"),
    ],
    ids=spelled,
)
def test_why_nobody_is_reached(error: OSError, told: str) -> None:
    """Each failure to reach a server says what happened and keeps its number."""
    mapped = dialing._not_running("h:1", error)

    assert str(mapped).startswith(told)
    assert error.errno == mapped.errno


@pytest.mark.parametrize("use", ["listen", "dial"])
def test_no_descriptor_is_left(listener: socket.socket, use: str) -> None:
    """When the system gives no socket, that is an error of ours too."""
    address = listener.getsockname()

    with no_descriptors(), pytest.raises(HiSockError):
        listen_at(LOCAL).close() if use == "listen" else dial(address).close()


# --- tuning ----------------------------------------------------------------------


def test_a_tuned_socket(listener: socket.socket) -> None:
    """It never waits, sends at once, and notices a dead peer within 20 s."""
    with dial(listener.getsockname()) as sock:
        tune(sock)

        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            idle, between, count, unanswered = (
                sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, option))
                for option in (
                    "TCP_KEEPIDLE",
                    "TCP_KEEPINTVL",
                    "TCP_KEEPCNT",
                    "TCP_USER_TIMEOUT",
                )
            )
            assert (idle + between * count, unanswered) == (20, 20_000)
