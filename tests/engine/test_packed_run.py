"""Many messages of one command in a read of the compact wire: as if each came alone."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hisock import HiSockServer

from .packed import BYE, MESSAGE, Packed, welcomed
from .test_blocking import PATIENCE, eventually, interrupt_at
from .test_serve import by_hand, turn

pack = msgspec.msgpack.encode
#: What is another each time.
PORT = re.compile(r"\b\d{4,5}\b")


@dataclass
class Move:
    """What is sent most."""

    x: int
    path: list[int]


@dataclass
class Steps:
    """Refuses some of what would fit."""

    x: int
    path: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Only a few are allowed."""
        if self.x > 500:
            raise ValueError("x is too large")


def content_of(number: int) -> bytes:
    """The content of a message that fits, packed."""
    return pack({"x": number, "path": [1, 2]})


def body_of(number: int) -> bytes:
    """A whole message that fits."""
    return b"\x93\x01\xa4move" + content_of(number)


IT = content_of(77)
MOVE = b"\x93\x01\xa4move"
#: What may stand among messages that are all alike.
ODD: dict[str, bytes] = {
    "content of another type": MOVE + pack([1, 2]),
    "content that lacks a field": MOVE + pack({"x": 5}),
    "content with a wrong field": MOVE + pack({"x": "5", "path": [1, 2]}),
    "content with one field more": MOVE + pack({"x": 5, "path": [], "z": 1}),
    "content as JSON": MOVE + pack(b'{"x": 5, "path": [6]}'),
    "content that the type refuses": MOVE + pack({"x": 501, "path": []}),
    "bytes": MOVE + pack(b"12"),
    "text": MOVE + pack("12"),
    "a number": MOVE + pack(12),
    "nothing": MOVE + b"\xc0",
    "text that is no Unicode": MOVE + b"\xa2\xff\xff",
    "a key that is no Unicode": MOVE + b"\x82\xa1\xff\x05\xa4path\x90",
    "keys that cannot be": MOVE + b"\x81\x81\x01\x02\x03",
    "an extension": MOVE + b"\xd4\x05\x00",
    "an extension within": MOVE + b"\x82\xa1x\xd4\x05\x00\xa4path\x90",
    "nested deeply": MOVE + b"\x91" * 5_000 + b"\xc0",
    "no MessagePack": MOVE + b"\xc1",
    "content that is cut": MOVE + IT[:-1],
    "no content": MOVE,
    "a byte too many": MOVE + IT + b"\x00",
    "a value too many": MOVE + IT + IT,
    "a command that begins so": b"\x93\x01\xa5moves" + IT,
    "a command that is shorter": b"\x93\x01\xa3mov" + IT,
    "a command of two words": b"\x93\x01\xa6move x" + IT,
    "a command nobody handles": b"\x93\x01\xa4mope" + IT,
    "no command": b"\x93\x01\xc0" + pack(b"move 12"),
    "a command as bytes": b"\x93\x01\xc4\x04move" + IT,
    "a command as a number": b"\x93\x01\x04" + IT,
    "a long form of the command": b"\x93\x01\xd9\x04move" + IT,
    "a longer form of the command": b"\x93\x01\xda\x00\x04move" + IT,
    "a long form of the kind": b"\x93\xcc\x01\xa4move" + IT,
    "a long form of the array": b"\xdc\x00\x03\x01\xa4move" + IT,
    "a command that is no Unicode": b"\x93\x01\xa4mov\xff" + IT,
    "no deadline": b"\x94" + MOVE[1:] + IT + b"\xc0",
    "a deadline to come": b"\x94" + MOVE[1:] + IT + pack(2**50),
    "a deadline that is over": b"\x94" + MOVE[1:] + IT + b"\x00",
    "a deadline that is none": b"\x94" + MOVE[1:] + IT + b"\xff",
    "room to grow": b"\x95" + MOVE[1:] + IT + b"\xc0\x07",
    "too few elements": b"\x92" + MOVE[1:],
    "too many announced": b"\x94" + MOVE[1:] + IT,
    "another kind": b"\x92\x09\xa3new",
    "a kind that a client may not say": b"\x92\x0c\x80",
    "a kind that is none": b"\x93\x1e\xa4move" + IT,
    "a handler that raises": body_of(13),
    "a handler that raises what a peer might do": body_of(14),
}


class Told:
    """A server, and everything that a client of it brings about, in order."""

    def __init__(self, server: HiSockServer, hint: Any) -> None:
        self.server = server
        self.log: list[Any] = []

        def move(client: Any, message: Any) -> None:
            self.log.append(message)
            if getattr(message, "x", 0) == 13:
                raise ValueError("unlucky")
            if getattr(message, "x", 0) == 14:
                raise msgspec.ValidationError("unlucky as well")

        move.__annotations__["message"] = hint
        server.on("move")(move)
        for command in ("moves", "mov", "move x"):
            server.on(command)(self._note(command))
        server.on("name_change")(
            lambda client, old, new: self.log.append(("renamed", new))
        )
        server.on("leave")(lambda client: self.log.append("left"))
        server.on_error(lambda error: self.log.append(PORT.sub("PORT", repr(error))))

    def _note(self, command: str) -> Callable[[Any, Any], None]:
        return lambda client, message: self.log.append((command, message))

    def hear(self, bodies: list[bytes], *, together: bool) -> list[Any]:
        """What comes of bodies, in one read or each in its own."""
        stream = [len(body).to_bytes(4, "big") + body for body in bodies]
        with joined(self.server) as peer:
            for piece in [b"".join(stream)] if together else stream:
                before = self.server.stats()["bytes_received"]
                with contextlib.suppress(OSError):
                    peer.sock.sendall(piece)
                self._turn_until(before + len(piece))
            with contextlib.suppress(OSError):
                peer.put([BYE, 0, "done"])
            turn(self.server, lambda: "left" in self.log, "it is gone")
            self.log += goodbyes(peer)
        return self.log

    def _turn_until(self, size: int) -> None:
        """Handle what was read when it is so much, or the client is gone."""

        def is_read() -> bool:
            return self.server.stats()["bytes_received"] >= size or not len(self.server)

        turn(self.server, is_read, "it is read")
        self.server.run()


@contextlib.contextmanager
def joined(server: HiSockServer) -> Iterator[Packed]:
    """A raw client on the compact wire, whose clock is far ahead."""
    hello = {"name": "raw", "group": "g", "proto": 2, "now": 10**9}
    with Packed(socket.create_connection(server.addr, PATIENCE)) as peer:
        peer.send(b"$CLTHELLO$ " + msgspec.json.encode(hello), b"$DH_NUMS$")
        turn(server, lambda: len(server) == 1, "it is here")
        peer.agree()
        server.run()
        yield peer


def goodbyes(peer: Packed) -> list[Any]:
    """What the server said at the end."""
    said = []
    with contextlib.suppress(OSError, AssertionError):
        while True:
            frame = peer.next()
            if frame[0] == BYE:
                said.append(frame)
    return said


def heard(bodies: list[bytes], hint: Any, *, together: bool) -> list[Any]:
    """What a server of its own makes of them."""
    with by_hand(errors="log") as server:
        return Told(server, hint).hear(bodies, together=together)


HINTS = [object, Move, Steps, bytes, int | Move]


@pytest.mark.parametrize("hint", HINTS, ids=str)
@pytest.mark.parametrize("what", ODD)
def test_one_that_is_odd_among_many(what: str, hint: Any) -> None:
    """Whatever stands among messages that are all alike is judged as if it had come
    alone: the same values, the same errors in the same words, the same end."""
    usual = pack(b"x") if hint is bytes else content_of(1)
    bodies = [MOVE + usual] * 20 + [ODD[what]] + [MOVE + usual] * 20

    together = heard(bodies, hint, together=True)

    assert together == heard(bodies, hint, together=False)
    assert len(together) >= 21


@given(st.lists(st.sampled_from([*ODD, *["alike"] * 40]), max_size=60))
@settings(max_examples=30, deadline=None)
def test_any_order(kinds: list[str]) -> None:
    """Runs of any length, with anything between them."""
    bodies = [ODD.get(kind) or body_of(at) for at, kind in enumerate(kinds)]

    together = heard(bodies, Move, together=True)

    assert together == heard(bodies, Move, together=False)


@contextlib.contextmanager
def hearing(**options: Any) -> Iterator[tuple[HiSockServer, Packed, list[int]]]:
    """A server whose client has said 40 moves at once, and what its handlers note."""
    with by_hand(**options) as server, joined(server) as peer:
        moves = [[MESSAGE, "move", {"x": number, "path": []}] for number in range(40)]
        peer.put(*moves)
        yield server, peer, []


@pytest.mark.parametrize(("ttl", "count"), [(None, 41), (2**50, 41), (0, 40)])
def test_what_is_read_once_of_a_message_with_a_deadline(
    ttl: int | None, count: int
) -> None:
    """Its content is made into an object once, and not at all when it comes too late:
    that may run code of the program's."""
    made: list[int] = []

    @dataclass
    class Noted:
        x: int

        def __post_init__(self) -> None:
            made.append(self.x)

    odd = b"\x94" + MOVE[1:] + pack({"x": 7}) + pack(ttl)
    bodies = [MOVE + pack({"x": 1})] * 20 + [odd] + [MOVE + pack({"x": 1})] * 20

    heard(bodies, Noted, together=True)

    assert len(made) == count


def test_a_handler_that_registers_another_in_its_place() -> None:
    """From the next message on the other one is called, with content as it asks."""
    others: list[Any] = []
    with hearing() as (server, _, seen):

        @server.on("move")
        def move(client: Any, message: Move) -> None:
            seen.append(message.x)
            if message.x == 20:

                @server.on("move", override=True)
                def other(client: Any, message: dict[str, Any]) -> None:
                    others.append(message)

        turn(server, lambda: len(seen) + len(others) == 40, "all of them")

    assert seen == [*range(21)]
    assert others == [{"x": number, "path": []} for number in range(21, 40)]


def test_a_handler_that_has_every_message_watched() -> None:
    """From the next message on ``message`` sees each, behind its own handler."""
    watched: list[bytes] = []
    with hearing() as (server, _, seen):

        @server.on("move")
        def move(client: Any, message: Move) -> None:
            seen.append(message.x)
            if message.x == 20:
                server.on("message")(lambda client, message: watched.append(message))

        turn(server, lambda: len(seen) == 40, "all of them")

    assert seen == [*range(40)]
    assert len(watched) == 19


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_handler_that_raises_in_the_middle(error: type[BaseException]) -> None:
    """It costs its own message, and what is behind it is handled next."""
    with hearing(errors="raise") as (server, _, seen):

        @server.on("move")
        def move(client: Any, message: Move) -> None:
            seen.append(message.x)
            if message.x in (20, 30):
                raise error

        for last in (20, 30):
            with pytest.raises(error):
                turn(server, lambda: False, "an error")
            assert seen == [*range(last + 1)]
        turn(server, lambda: len(seen) == 40, "the rest")

    assert seen == [*range(40)]


def test_an_end_in_the_middle() -> None:
    """A client that its handler ends is heard no more."""
    with hearing() as (server, _, seen):

        @server.on("move")
        def move(client: Any, message: Move) -> None:
            seen.append(message.x)
            if message.x == 20:
                server.disconnect_client(client)

        turn(server, lambda: not len(server), "it is gone")

    assert seen == [*range(21)]


def test_what_handlers_send_keeps_its_order() -> None:
    """Each answer of many comes, in order."""
    with hearing() as (server, peer, seen):

        @server.on("move")
        def move(client: Any, message: Move) -> None:
            seen.append(message.x)
            server.send_client(client, "moved", message.x)

        turn(server, lambda: len(seen) == 40, "all of them")
        server.run()
        said: list[int] = []
        while len(said) < 40:
            came = peer.next()
            if came[:2] == [MESSAGE, "moved"]:
                said.append(came[2])

    assert said == [*range(40)]


def test_a_handler_that_receives_in_the_middle() -> None:
    """On a client, too: what ``recv`` takes from behind the message whose handler runs
    is taken once, and the others keep their order."""
    seen: list[int] = []
    taken: list[Any] = []
    with welcomed() as (client, server):

        @client.on("move")
        def move(message: Move) -> None:
            seen.append(message.x)
            if message.x in (3, 20):
                taken.append(client.recv("other", type=int))

        moves = [[MESSAGE, "move", {"x": number, "path": []}] for number in range(40)]
        moves[10:10] = [[MESSAGE, "other", 1]]
        moves[33:33] = [[MESSAGE, "other", 2]]
        server.put(*moves)
        eventually(lambda: [client.poll(0.0), len(seen) == 40][1], "all of them")

    assert seen == [*range(40)]
    assert taken == [1, 2]


def test_an_interrupt_anywhere_in_a_run_costs_one_message_at_most() -> None:
    """Ctrl-C at any place loses the one that was just taken to its handler, and
    repeats none."""
    seen: list[int] = []

    def note(client: Any, message: Move) -> None:
        seen.append(message.x)

    with contextlib.ExitStack() as peers, by_hand() as server:
        server.on("move")(note)
        peer: Packed | None = None
        moves = [[MESSAGE, "move", {"x": each, "path": []}] for each in range(14)]
        for number in itertools.count():
            if peer is None:
                peer = peers.enter_context(joined(server))
            seen.clear()
            peer.put(*moves)
            with (
                interrupt_at(number, note) as reached,
                contextlib.suppress(KeyboardInterrupt),
            ):
                turn(server, lambda: len(seen) == 14, "all of them")
            if not reached:
                break
            with contextlib.suppress(OSError):
                peer.put([MESSAGE, "move", {"x": 14, "path": []}])
            turn(server, lambda: 14 in seen or not len(server), "all of them")
            if len(server):
                assert seen == sorted(set(seen)), f"interrupted at {reached[0]}"
                assert len(seen) >= 14, f"interrupted at {reached[0]}"
            else:
                peer = None
    assert number > 30
