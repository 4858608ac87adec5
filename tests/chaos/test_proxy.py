"""The proxy alone, between plain sockets: each control does what it says, at once."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from .pipes import Direction
from .proxy import ChaosProxy

PATIENCE = 5.0
#: Long enough for a byte to pass that should not.
MOMENT = 0.05


class Wire:
    """A plain listener behind a proxy, and the sockets that met through it."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.listener = self._keep(socket.create_server(("127.0.0.1", 0)))
        self.listener.settimeout(PATIENCE)
        self.proxy = self._stack.enter_context(
            ChaosProxy(self.listener.getsockname()[:2])
        )

    def _keep(self, sock: socket.socket) -> socket.socket:
        sock.settimeout(PATIENCE)
        return self._stack.enter_context(sock)

    def dial(self) -> socket.socket:
        """A client's socket."""
        return self._keep(socket.create_connection(self.proxy.address, PATIENCE))

    def accept(self) -> socket.socket:
        """The server's next socket."""
        return self._keep(self.listener.accept()[0])

    def meet(self) -> tuple[socket.socket, socket.socket]:
        """A client's socket and the server's, with the proxy between them."""
        client, server = self.dial(), self.accept()
        before = self.proxy.bytes_up
        client.sendall(b"?")
        assert take(server, 1) == b"?"
        # It arrives a moment before it is counted.
        assert self.proxy.wait_for(lambda: self.proxy.bytes_up > before)
        return client, server

    def close(self) -> None:
        """End everything."""
        self._stack.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A listener with a proxy before it."""
    made = Wire()
    yield made
    made.close()


def take(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    taken = bytearray()
    while len(taken) < size:
        piece = sock.recv(min(1 << 16, size - len(taken)))
        assert piece, f"it ended after {len(taken)} bytes"
        taken += piece
    return bytes(taken)


def take_all(sock: socket.socket) -> bytes:
    """What comes until FIN."""
    taken = bytearray()
    while piece := sock.recv(1 << 16):
        taken += piece
    return bytes(taken)


def is_silent(sock: socket.socket) -> bool:
    """Whether nothing comes for a moment, the end included."""
    sock.settimeout(MOMENT)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE)
    return False


def expect_reset(sock: socket.socket) -> None:
    """Nothing more may come than a reset."""
    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def expect_no_beginning(wire: Wire) -> None:
    """A client is reset at once, as early as in its connect."""
    with pytest.raises(ConnectionResetError):
        wire.dial().recv(1)


def ends(
    wire: Wire, direction: Direction
) -> tuple[socket.socket, socket.socket, Callable[[], int]]:
    """Who sends in a direction, who receives, and how much has passed."""
    client, server = wire.meet()
    proxy = wire.proxy
    if direction == "up":
        return client, server, lambda: proxy.bytes_up
    return server, client, lambda: proxy.bytes_down


both_ways = pytest.mark.parametrize("direction", ["up", "down"])


@both_ways
def test_bytes_pass_unchanged_and_are_counted(wire: Wire, direction: Direction) -> None:
    """What goes in comes out, whatever its size, and half-closing passes too."""
    sender, receiver, passed = ends(wire, direction)
    before = passed()
    data = os.urandom(3_000_000)
    thread = threading.Thread(target=sender.sendall, args=(data,))
    thread.start()

    assert take(receiver, len(data)) == data

    thread.join(PATIENCE)
    sender.shutdown(socket.SHUT_WR)
    assert take_all(receiver) == b""
    assert wire.proxy.wait_for(lambda: passed() - before == len(data))
    receiver.sendall(b"still open this way")
    assert take(sender, 19) == b"still open this way"


def test_a_connection_that_both_ended_is_forgotten(wire: Wire) -> None:
    """Nothing is kept of a connection that is over; that is no cut."""
    client, server = wire.meet()
    client.close()
    assert take_all(server) == b""
    server.close()

    assert wire.proxy.wait_for(lambda: wire.proxy.present == 0)
    assert (wire.proxy.connections, wire.proxy.cuts) == (1, 0)


def test_a_reset_passes(wire: Wire) -> None:
    """A side that resets resets the other."""
    client, server = wire.meet()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()

    expect_reset(server)


def test_a_server_that_is_not_there_resets_the_client(wire: Wire) -> None:
    """The proxy accepts, finds nobody, and resets."""
    wire.listener.close()

    expect_no_beginning(wire)


def test_fin_ends_both_sides(wire: Wire) -> None:
    """After a cut by FIN both sides read the end, and what they still send is lost."""
    client, server = wire.meet()

    assert wire.proxy.cut("fin") == 1

    assert (client.recv(1), server.recv(1)) == (b"", b"")
    client.sendall(b"into the void")
    assert wire.proxy.present == 0
    assert wire.proxy.cuts == 1


def test_rst_resets_both_sides(wire: Wire) -> None:
    """After a cut by RST both sides get ``ConnectionResetError``."""
    client, server = wire.meet()

    assert wire.proxy.cut("rst") == 1

    expect_reset(client)
    expect_reset(server)


def test_both_is_fin_to_the_client_and_rst_to_the_server(wire: Wire) -> None:
    """The two ends of a connection may see different ends."""
    client, server = wire.meet()

    wire.proxy.cut("both")

    assert client.recv(1) == b""
    expect_reset(server)


def test_a_cut_may_be_told_to_one_side_alone(wire: Wire) -> None:
    """The other side goes on talking to nobody."""
    client, server = wire.meet()

    wire.proxy.cut("rst", only="client")

    expect_reset(client)
    server.sendall(b"is anybody there?")
    assert is_silent(server)


def test_a_cut_ends_every_connection_and_later_ones_pass(wire: Wire) -> None:
    """A cut is of what is present, and of nothing that comes later."""
    pairs = [wire.meet() for _ in range(3)]

    assert wire.proxy.cut("rst") == 3

    for client, server in pairs:
        expect_reset(client)
        expect_reset(server)
    wire.meet()
    assert wire.proxy.cut("rst") == 1
    assert wire.proxy.cut("rst") == 0


@both_ways
@pytest.mark.parametrize("size", [1, 2, 17, 4096, 200_000])
def test_cut_after_is_exact_to_the_byte(
    wire: Wire, direction: Direction, size: int
) -> None:
    """Just so many bytes arrive in that direction, then the end."""
    sender, receiver, passed = ends(wire, direction)
    before = passed()
    data = os.urandom(300_000)
    wire.proxy.cut_after(direction, size, "fin")
    thread = threading.Thread(target=_send_into_a_cut, args=(sender, data))
    thread.start()

    assert take_all(receiver) == data[:size]

    receiver.close()
    sender.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert wire.proxy.wait_for(lambda: passed() - before == size)
    assert wire.proxy.cuts == 1


def _send_into_a_cut(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(data)


@both_ways
def test_cut_after_resets_behind_the_byte(wire: Wire, direction: Direction) -> None:
    """With RST, too, what passed before it arrives."""
    sender, receiver, _ = ends(wire, direction)
    wire.proxy.cut_after(direction, 3, "rst")

    sender.sendall(b"abcdef")

    assert take(receiver, 3) == b"abc"
    expect_reset(receiver)
    expect_reset(sender)


def test_cut_after_counts_one_direction(wire: Wire) -> None:
    """Bytes of the other direction do not count."""
    client, server = wire.meet()
    wire.proxy.cut_after("up", 1, "rst")

    server.sendall(b"a" * 1000)

    assert take(client, 1000) == b"a" * 1000
    assert wire.proxy.cuts == 0


def test_cut_after_counts_each_connection_by_itself(wire: Wire) -> None:
    """One connection is cut, the other has bytes left."""
    (first, _), (second, other) = wire.meet(), wire.meet()
    assert wire.proxy.cut_after("up", 2, "rst") == 2

    first.sendall(b"ab")
    second.sendall(b"a")

    expect_reset(first)
    assert take(other, 1) == b"a"
    assert wire.proxy.present == 1


@both_ways
def test_cut_after_may_wait_for_the_next_connection(
    wire: Wire, direction: Direction
) -> None:
    """A present connection lives; the next is cut at its byte, the one after lives."""
    client, server = wire.meet()
    wire.proxy.cut_after(direction, 5, "fin", of="next")
    client.sendall(b"much longer than five")
    assert take(server, 21) == b"much longer than five"

    dialed, accepted = wire.dial(), wire.accept()
    sender, receiver = (dialed, accepted) if direction == "up" else (accepted, dialed)
    sender.sendall(b"1234567")

    assert take_all(receiver) == b"12345"
    wire.meet()


def test_nothing_passes_of_a_connection_that_is_cut_after_nothing(wire: Wire) -> None:
    """``cut_after`` 0 bytes of the next connection cuts it when it is accepted."""
    wire.proxy.cut_after("up", 0, "rst", of="next")

    expect_no_beginning(wire)


def test_disarm_forgets_the_cut(wire: Wire) -> None:
    """What has not been cut yet will not be."""
    client, server = wire.meet()
    wire.proxy.cut_after("up", 3, "rst")
    wire.proxy.cut_after("up", 0, "rst", of="next")

    wire.proxy.disarm()

    client.sendall(b"abcdef")
    assert take(server, 6) == b"abcdef"
    wire.meet()


@both_ways
def test_a_black_hole_swallows_one_direction(wire: Wire, direction: Direction) -> None:
    """The other direction passes; when it heals, what waited passes, in order."""
    sender, receiver, passed = ends(wire, direction)
    before = passed()
    wire.proxy.blackhole(direction)

    sender.sendall(b"one")
    sender.sendall(b"two")
    receiver.sendall(b"back")

    assert take(sender, 4) == b"back"
    assert is_silent(receiver)
    assert passed() == before
    wire.proxy.heal()
    assert take(receiver, 6) == b"onetwo"


def test_a_black_hole_swallows_both_directions_and_ends(wire: Wire) -> None:
    """Not even FIN passes, until it heals."""
    client, server = wire.meet()
    wire.proxy.blackhole()

    client.sendall(b"up")
    client.shutdown(socket.SHUT_WR)
    server.sendall(b"down")

    assert is_silent(client)
    assert is_silent(server)
    wire.proxy.heal()
    assert take_all(server) == b"up"
    assert take(client, 4) == b"down"


def test_a_black_hole_holds_for_new_connections(wire: Wire) -> None:
    """They are accepted, and nothing passes."""
    wire.proxy.blackhole("up")
    client, server = wire.dial(), wire.accept()
    client.sendall(b"hello")

    assert is_silent(server)
    wire.proxy.heal()
    assert take(server, 5) == b"hello"


def test_what_waits_in_a_black_hole_is_lost_by_a_cut(wire: Wire) -> None:
    """Cut, then heal: nothing of it arrives."""
    client, server = wire.meet()
    wire.proxy.blackhole()
    client.sendall(b"lost")

    wire.proxy.cut("fin")
    wire.proxy.heal()

    assert take_all(server) == b""


@both_ways
def test_it_reads_no_faster_than_the_other_side_takes(
    wire: Wire, direction: Direction
) -> None:
    """What it holds for a slow reader is bounded, and its sender has to wait."""
    sender, receiver, _ = ends(wire, direction)
    data = os.urandom(30_000_000)
    thread = threading.Thread(target=sender.sendall, args=(data,))
    thread.start()

    assert wire.proxy.wait_for(lambda: wire.proxy.held(direction) > 100_000)
    thread.join(MOMENT)
    assert thread.is_alive()
    assert wire.proxy.held(direction) <= 256 * 1024

    assert take(receiver, len(data)) == data
    thread.join(PATIENCE)


def test_a_closed_port_refuses_and_accepts_again(wire: Wire) -> None:
    """Nobody listens meanwhile; the connection from before lives, the port is kept."""
    client, server = wire.meet()

    wire.proxy.refuse()

    with pytest.raises(ConnectionRefusedError):
        wire.dial()
    client.sendall(b"x")
    assert take(server, 1) == b"x"
    wire.proxy.accept_again()
    wire.meet()


def test_it_may_accept_and_close_at_once(wire: Wire) -> None:
    """By FIN or by RST; the server hears nothing of it."""
    wire.proxy.refuse("fin")
    assert wire.dial().recv(1) == b""
    assert wire.proxy.wait_for(lambda: wire.proxy.refused == 1)

    wire.proxy.refuse("rst")
    expect_no_beginning(wire)

    wire.proxy.accept_again()
    wire.meet()
    assert wire.proxy.connections == 1


@both_ways
def test_a_dribble_is_so_many_bytes_at_a_time(wire: Wire, direction: Direction) -> None:
    """One read never gives more than a pause let through; all of it comes, and FIN."""
    sender, receiver, _ = ends(wire, direction)
    wire.proxy.dribble(2, pause=0.005)
    began = time.monotonic()  # the first bytes may be through before the last are sent
    sender.sendall(b"0123456789")
    sender.shutdown(socket.SHUT_WR)

    assert take_all(receiver) == b"0123456789"

    assert time.monotonic() - began >= 4 * 0.005 - 0.001
    wire.proxy.dribble(None)
    wire.meet()


def test_a_dribble_of_single_bytes_passes_much(wire: Wire) -> None:
    """Without a pause it is only slow."""
    client, server = wire.meet()
    wire.proxy.dribble(1)
    data = os.urandom(5000)

    client.sendall(data)

    assert take(server, 5000) == data


def test_latency_delays_each_way(wire: Wire) -> None:
    """A round trip takes twice the latency, and order holds."""
    client, server = wire.meet()
    wire.proxy.latency(0.05)

    began = time.monotonic()
    client.sendall(b"ping")
    assert take(server, 4) == b"ping"
    server.sendall(b"pong")
    assert take(client, 4) == b"pong"

    assert time.monotonic() - began >= 0.1
    client.sendall(b"slow")
    wire.proxy.latency(0.0)
    client.sendall(b"quick")
    assert take(server, 9) == b"slowquick"


def test_controls_may_come_from_many_threads(wire: Wire) -> None:
    """Each is done before it returns, whoever else asks."""
    wire.meet()
    made: list[int] = []

    def ask() -> None:
        for _ in range(50):
            wire.proxy.blackhole("up")
            wire.proxy.heal()
            made.append(wire.proxy.cut_after("up", 1000))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert made == [1] * 200


def test_closing_twice_is_no_error(wire: Wire) -> None:
    """And ends every connection, and leaves no thread."""
    client, _ = wire.meet()

    wire.proxy.close()
    wire.proxy.close()

    with contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""
    assert "chaos proxy" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError):
        wire.dial()
