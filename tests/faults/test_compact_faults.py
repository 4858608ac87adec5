"""A peer that speaks the compact wire badly loses its own connection, with a reason.

The honest client beside it (``Stage``) is never harmed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings

from hisock.errors import ClientDisconnected, RemoteError
from hisock.types import Limits

from .compact import (
    PACK,
    PIECES,
    PROTOCOL_ERROR,
    TOO_LARGE,
    hello,
    joined,
    packed,
    served,
    sized,
)
from .raw import Stage, eventually, frame

BAD: Final = {
    "no MessagePack": sized(b"\xc1\xc1"),
    "no array": sized(b"\xa2hi"),
    "an empty array": sized(b"\x90\x00"),
    "a length of none": sized(b""),
    "a length of one": sized(b"\x90"),
    "trailing bytes": sized(PACK([1, "x", 1]) + b"\x00"),
    "an unknown kind": packed(99, 1),
    "a kind of 0": packed(0, 1),
    "a negative kind": packed(-1, 1),
    "a kind in words": packed("one", 1),
    "too few elements": packed(1, "x"),
    "a request without content": packed(2, 1, "x"),
    "a command that is a number": packed(1, 5, b""),
    "a command that is no UTF-8": sized(b"\x93\x01\xa2\xff\xfe\xc0"),
    "content that is no UTF-8": sized(b"\x93\x01\xa4echo\xa2\xff\xfe"),
    "content of a foreign extension": sized(b"\x93\x01\xa4echo\xd4\x05\x00"),
    "a bottomless content": sized(b"\x93\x01\xa4echo" + b"\x91" * 5000 + b"\xc0"),
    "a bottomless frame": sized(b"\x91" * 5000 + b"\xc0"),
    "an id of 0": packed(2, 0, "x", None),
    "an id that is the server's": packed(2, 2, "x", None),
    "an id beyond 64 bits": sized(b"\x94\x02\xcf" + b"\xff" * 8 + b"\xa1x\xc0"),
    "a name that is a number": packed(9, 5),
    "a name with control characters": packed(9, "a\x00b"),
    "a name that is too long": packed(9, "x" * 300),
    "a group that is a list": packed(10, ["x"]),
    "groups that are no lists": packed(15, "a", "b"),
    "groups with a bad name": packed(15, ["\x01"], []),
    "more groups than may be": packed(15, [str(n) for n in range(200)], []),
    "a roster entry from a client": packed(12, {"ip": None}),
    "a departure from a client": packed(13, {"ip": None}),
    "a gap counted in words": packed(14, "one", None),
    "a gap of a group that is a number": packed(14, 1, 5),
    "a welcome from a client": packed(37, {}),
    "credit of none": packed(7, 1, 0),
    "an ack that is text": packed(32, "x"),
    "over the limit": (Limits().message + 1).to_bytes(4, "big"),
    "a claim of 4 GB": b"\xff\xff\xff\xff",
}
#: What is refused for its size alone.
LARGE: Final = ("over the limit", "a claim of 4 GB")


@pytest.mark.parametrize("what", BAD)
def test_a_broken_frame_ends_its_own_client(what: str) -> None:
    """With a goodbye that says why; what came before it was handled."""
    with Stage() as stage:
        stage.record("first", "x")
        with joined(stage) as peer:
            peer.send(packed(1, "first", 1))
            peer.throw(BAD[what])
            reason = peer.expect_bye(TOO_LARGE if what in LARGE else PROTOCOL_ERROR)
        assert reason
        eventually(lambda: "bad" in stage.left, "it leaves")
        assert stage.ran == [("first", b"1")]


#: What a server may say without harm, or has another meaning from it.
FROM_CLIENTS_ONLY: Final = ("a name", "a group that", "groups", "more groups")


@pytest.mark.parametrize(
    "what",
    [
        what
        for what in BAD
        if "from a client" not in what and not what.startswith(FROM_CLIENTS_ONLY)
    ],
)
def test_a_broken_frame_ends_our_client(what: str) -> None:
    """Its user gets an error that says what came."""
    bad = packed(2, 1, "x", None) if "server's" in what else BAD[what]
    with served() as (client, server):
        got: list[bytes] = []
        client.on("first")(got.append)
        client.on("echo")(lambda message: None)
        client.on("x")(lambda message: None)
        server.send(packed(1, "first", b"1"))
        server.throw(bad)
        with pytest.raises(ClientDisconnected) as caught:
            client.run_forever()
        assert got == [b"1"]
        assert str(caught.value)


def test_a_second_request_of_one_id_is_a_violation() -> None:
    """Ids ascend; the first was answered."""
    with Stage() as stage:
        stage.server.on("twice")(lambda client, n: 2 * n)
        with joined(stage) as peer:
            peer.send(packed(2, 5, "twice", 4))
            assert peer.take_packed() == [3, 5, 8]
            peer.send(packed(2, 5, "twice", 4))
            peer.expect_bye(PROTOCOL_ERROR)


def test_answers_to_nobody_are_counted() -> None:
    """Replies, items, ends and failures of unknown ids change nothing."""
    with Stage() as stage, joined(stage) as peer:
        for answer in (
            packed(3, 2, b"reply"),
            packed(4, 4, "code", "text"),
            packed(5, 6, b"item"),
            packed(6, 8),
            packed(7, 10, 5),
            packed(8, 12),
        ):
            peer.send(answer)
        peer.send(packed(33, 7))
        assert peer.take_packed() == [34, 7]
        assert stage.server.stats()["late_replies"] == 4


def test_items_without_credit_end_the_producer() -> None:
    """A client that streams more than it was asked for is cut."""
    with Stage() as stage, joined(stage) as peer:
        stream = stage.server.stream_client("bad", "flood")
        kind, number, command, _, window, *_ = peer.take_packed()
        assert (kind, command, window) == (2, "flood", 64)
        peer.throw(b"".join(packed(5, number, n) for n in range(window + 1)))
        peer.expect_bye(PROTOCOL_ERROR)
        assert [next(stream) for _ in range(window)] == list(range(window))


def test_more_open_streams_than_may_be_are_refused() -> None:
    """With a failure each; the connection lives, and so do the open ones."""
    limit = 3
    with Stage(limits=Limits(requests=limit)) as stage:

        @stage.server.on("count")
        def count(client: Any, upto: int) -> Iterator[int]:
            yield from range(upto)

        with joined(stage) as peer:
            for number in range(limit + 2):
                # One item of credit: none of them comes to its end.
                peer.send(packed(2, 2 * number + 1, "count", 9, 1))
            said = [peer.take_packed() for _ in range(limit + 2)]
            refused = {number: code for kind, number, code, *_ in said if kind == 4}
            assert refused == {7: "overloaded", 9: "overloaded"}
            peer.send(packed(7, 1, 8))
            assert [peer.take_packed()[2] for _ in range(8)] == list(range(1, 9))


@pytest.mark.parametrize("proto", [1, "2", -2, 2.5, True, [2]])
def test_a_hello_with_another_version_is_refused(proto: object) -> None:
    """An old one with the reason, nonsense without an answer."""
    with Stage() as stage, stage.stranger() as peer:
        peer.send(hello("old", proto))
        if proto == 1 and proto is not True:
            body = peer.take_frame()
            assert body.startswith(b"$REFUSED$ ")
            refusal = json.loads(body.removeprefix(b"$REFUSED$ "))
            assert refusal["code"] == "version"
            assert "version 2" in refusal["text"]
        assert peer.take_all() == b""
        assert "old" not in stage.joined


def test_a_newer_version_is_met_with_ours() -> None:
    """The welcome names the version that both speak."""
    with Stage() as stage, stage.stranger() as peer:
        peer.send(hello("new", 7))
        body = peer.take_frame()
        assert json.loads(body.removeprefix(b"$WELCOME$ "))["proto"] == 2


def test_compact_bytes_before_the_hello() -> None:
    """They are no hello: the stranger is dropped without a word."""
    with Stage() as stage, stage.stranger() as peer:
        peer.throw(packed(1, "echo", b"x"))
        assert peer.take_all() == b""


def test_a_mark_before_its_welcome() -> None:
    """``$COMPACT$`` from a client that had no welcome ends that client."""
    with Stage() as stage:
        with stage.peer("early") as peer:
            peer.send(frame(b"$COMPACT$"))
            peer.take_all()
        eventually(lambda: "early" in stage.left, "it leaves")


def test_a_second_hello() -> None:
    """On either wire it ends the client that sent it."""
    with Stage() as stage:
        with stage.peer("classic") as peer:
            peer.send(frame(b'$CLTHELLO$ {"name": "x", "group": null}'))
            peer.take_all()
        with joined(stage, "compact") as other:
            other.throw(hello("x"))
            other.take_all()
        eventually(lambda: {"classic", "compact"} <= set(stage.left), "they leave")
        assert "x" not in stage.joined


def test_a_handlers_failure_tells_nothing_of_its_own() -> None:
    """Neither the text nor the type of an exception reaches the caller."""
    with Stage() as stage:

        @stage.server.on("fail")
        def fail(client: Any, message: Any) -> None:
            raise ZeroDivisionError("the password is hunter2")

        with joined(stage) as peer:
            peer.send(packed(2, 1, "fail", None))
            assert peer.take_packed() == [4, 1, "handler_failed", "", None]
        with pytest.raises(RemoteError) as caught:
            stage.honest.call("fail")
        assert "hunter2" not in str(caught.value)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(PIECES)
def test_whatever_comes_costs_its_own_connection(pieces: list[bytes]) -> None:
    """Arbitrary frames and bytes: the honest client is never harmed."""
    stage = _the_stage()
    with joined(stage) as peer:
        for piece in pieces:
            peer.throw(piece)
        stage.check()


_STAGE: list[Stage] = []


def _the_stage() -> Stage:
    return _STAGE[0]


@pytest.fixture(scope="module", autouse=True)
def _one_stage() -> Iterator[None]:
    with Stage() as stage:
        _STAGE.append(stage)
        yield
        _STAGE.clear()
