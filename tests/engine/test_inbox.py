"""Messages that nobody took: kept in order, bounded, and found by who wants them."""

from __future__ import annotations

import pytest

from hisock import Limits
from hisock.engine.inbox import Inbox

from .test_blocking import served, updated


def test_the_oldest_comes_first() -> None:
    """Messages come out in the order in which they came, then nothing."""
    inbox = Inbox(Limits())
    for body in (b"one", b"two", b"three"):
        assert inbox.add(body) == []

    assert [inbox.take(None) for _ in range(4)] == [b"one", b"two", b"three", None]


def test_who_wants_something_else_leaves_the_others() -> None:
    """The first that is wanted comes out; the others stay in order."""
    inbox = Inbox(Limits())
    for body in (b"a1", b"b1", b"a2", b"b2"):
        inbox.add(body)

    assert inbox.take(lambda body: body.startswith(b"b")) == b"b1"
    assert inbox.take(lambda body: body == b"c") is None
    assert list(inbox.bodies) == [b"a1", b"a2", b"b2"]


def test_too_many_push_out_the_oldest() -> None:
    """Over the number of messages the oldest go, and are told."""
    inbox = Inbox(Limits(unclaimed_messages=2))
    assert inbox.add(b"one") == inbox.add(b"two") == []

    assert inbox.add(b"three") == [b"one"]
    assert list(inbox.bodies) == [b"two", b"three"]


def test_too_many_bytes_push_out_the_oldest() -> None:
    """Over the number of bytes as many of the oldest go as it takes."""
    inbox = Inbox(Limits(unclaimed=10))
    for body in (b"aaaa", b"bbb", b"ccc"):
        assert inbox.add(body) == []

    assert inbox.add(b"ddddd") == [b"aaaa", b"bbb"]
    assert inbox.add(b"ee") == []


def test_what_was_taken_makes_room() -> None:
    """Bytes that somebody took count no longer."""
    inbox = Inbox(Limits(unclaimed=10, unclaimed_messages=2))
    inbox.add(b"12345")
    inbox.add(b"67890")
    assert inbox.take(lambda body: body == b"67890")

    assert inbox.add(b"abcde") == []
    assert inbox.add(b"f") == [b"12345"]


def test_the_newest_is_kept_whatever_its_size() -> None:
    """One message alone may be over the bound in bytes: somebody may want just it."""
    inbox = Inbox(Limits(unclaimed=10))
    inbox.add(b"small")

    assert inbox.add(b"x" * 100) == [b"small"]
    assert inbox.take(None) == b"x" * 100
    assert inbox.add(b"small") == []


def test_a_bound_of_0_is_none() -> None:
    """0 switches each of both limits off."""
    inbox = Inbox(Limits(unclaimed=0, unclaimed_messages=0))

    assert not any(inbox.add(b"x" * 2000) for _ in range(2000))
    assert len(inbox.bodies) == 2000


@pytest.mark.parametrize("split", [False, True])
def test_a_client_keeps_what_its_updates_pass_by(split: bool) -> None:
    """What came between handled messages is there for ``recv_raw``, the newest of it
    in order, whether it came in one piece or in several."""
    with served(limits=Limits(unclaimed_messages=3)) as (client, server):
        handled: list[bytes] = []
        client.on("it")(handled.append)
        bodies = [b"raw 1", b"it 1", b"raw 2", b"raw 3", b"it 2", b"raw 4", b"it 3"]
        for number, body in enumerate(bodies):
            server.send(body)
            if split and body.startswith(b"it"):
                count = len(
                    [each for each in bodies[: number + 1] if each[:2] == b"it"]
                )
                updated(client, lambda count=count: len(handled) == count, "it")  # type: ignore[misc]  # a default
        updated(client, lambda: len(handled) == 3, "all of them")
        server.send(b"raw 5")

        received = [client.recv_raw() for _ in range(4)]

    assert handled == [b"1", b"2", b"3"]
    assert received == [b"raw 2", b"raw 3", b"raw 4", b"raw 5"]
