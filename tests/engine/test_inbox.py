"""Messages that nobody took: kept in order, bounded, and found by who wants them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from hisock import Limits
from hisock.engine.inbox import Inbox, Mail
from hisock.errors import ConversionError
from hisock.handlers.cast import cast_for

from .test_blocking import served, updated


def packed(command: str | None, content: Any) -> Mail:
    """A message as the compact wire brings it."""
    return Mail(command, msgspec.msgpack.encode(content), is_packed=True)


def raw(*bodies: bytes) -> list[Mail]:
    """Messages as the wire of 1.1 brings them."""
    return [Mail(None, body) for body in bodies]


def whole(mails: Iterable[Mail]) -> list[bytes]:
    """What they are, as 1.1 writes it."""
    return [mail.whole() for mail in mails]


# --- one message ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mail", "expected"),
    [
        (Mail(None, b"move 1 2"), b"move 1 2"),
        (Mail(None, b""), b""),
        (packed("move", "1 2"), b"move 1 2"),
        (packed("move", b"\xff"), b"move \xff"),
        (packed("move", [1, None]), b"move [1, null]"),
        (packed("move", None), b"move "),
        (packed(None, {"a": 1.5}), b'{"a": 1.5}'),
        (packed("ü", 7), b"\xc3\xbc 7"),
    ],
)
def test_a_message_is_told_whole_as_1_1_writes_it(mail: Mail, expected: bytes) -> None:
    """Whatever wire it came on: that is what ``recv_raw`` returns."""
    assert mail.whole() == expected


@pytest.mark.parametrize(
    ("mail", "command"),
    [
        (Mail(None, b"move 1 2"), "move"),
        (Mail(None, b"move"), "move"),
        (Mail(None, b""), ""),
        (Mail(None, b"\xff x"), "\ufffd"),
        (packed("move left", 1), "move left"),
        (packed(None, "move 1"), None),
    ],
)
def test_the_command_of_a_message(mail: Mail, command: str | None) -> None:
    """The compact wire says it; on that of 1.1 it is the first word."""
    assert mail.command == command


@pytest.mark.parametrize(
    ("mail", "fits"),
    [
        (Mail(None, b"move left fast"), ["move", "move left", "move left fast"]),
        (Mail(None, b"move"), ["move"]),
        (Mail(None, b"moved"), []),
        (packed("move", b"left"), ["move"]),
        (packed("move left", b""), ["move left"]),
        (packed(None, "move left"), []),
    ],
)
def test_who_asks_for_a_command_gets_messages_with_exactly_it(
    mail: Mail, fits: list[str]
) -> None:
    """No command matches by its beginning alone, as in 1.1."""
    for command in ("mov", "move", "move left", "move left fast", "left"):
        assert mail.is_for(command) is (command in fits)


@pytest.mark.parametrize(
    ("mail", "command", "hint", "expected"),
    [
        (Mail(None, b"move 12"), "move", None, b"12"),
        (Mail(None, b"move 12"), "move", int, 12),
        (Mail(None, b"move"), "move", None, b""),
        (Mail(None, b"move left 3"), "move left", str, "3"),
        (Mail(None, b"move 12"), None, None, b"move 12"),
        (packed("move", 12), "move", None, 12),
        (packed("move", 12), "move", str, "12"),
        (packed("move", "12"), "move", int, 12),
        (packed("move", [1, "2"]), "move", list[int | str], [1, "2"]),
        (packed(None, b"x"), None, None, b"x"),
    ],
)
def test_the_content_of_a_message(
    mail: Mail, command: str | None, hint: Any, expected: object
) -> None:
    """As sent, or as the hint wants it: of 1.1 it is the text behind the command."""
    content = mail.content(command, cast_for(hint))
    assert (type(content), content) == (type(expected), expected)


def test_content_that_does_not_fit_says_so() -> None:
    """On both wires with the same error."""
    for mail in (Mail(None, b"move x"), packed("move", "x")):
        with pytest.raises(ConversionError, match="expected int"):
            mail.content("move", cast_for(int))


# --- many ------------------------------------------------------------------------


def test_the_oldest_comes_first() -> None:
    """Messages come out in the order in which they came, then nothing."""
    inbox = Inbox(Limits())
    mails = raw(b"one", b"two", b"three")
    for mail in mails:
        assert inbox.add(mail) == []

    assert [inbox.take(None) for _ in range(4)] == [*mails, None]


def test_who_wants_something_else_leaves_the_others() -> None:
    """The first that is wanted comes out; the others stay in order."""
    inbox = Inbox(Limits())
    a1, b1, a2, b2 = mails = raw(b"a x", b"b x", b"a y", b"b y")
    for mail in mails:
        inbox.add(mail)

    assert inbox.take(lambda mail: mail.is_for("b")) is b1
    assert inbox.take(lambda mail: mail.is_for("c")) is None
    assert list(inbox.mails) == [a1, a2, b2]


def test_too_many_push_out_the_oldest() -> None:
    """Over the number of messages the oldest go, and are told."""
    inbox = Inbox(Limits(unclaimed_messages=2))
    one, two, three = raw(b"one", b"two", b"three")
    assert inbox.add(one) == inbox.add(two) == []

    assert inbox.add(three) == [one]
    assert list(inbox.mails) == [two, three]


def test_too_many_bytes_push_out_the_oldest() -> None:
    """Over the number of bytes as many of the oldest go as it takes."""
    inbox = Inbox(Limits(unclaimed=10))
    for mail in raw(b"aaaa", b"bbb", b"ccc"):
        assert inbox.add(mail) == []

    assert whole(inbox.add(*raw(b"ddddd"))) == [b"aaaa", b"bbb"]
    assert inbox.add(*raw(b"ee")) == []


def test_what_was_taken_makes_room() -> None:
    """Bytes that somebody took count no longer."""
    inbox = Inbox(Limits(unclaimed=10, unclaimed_messages=2))
    for mail in raw(b"12345", b"67890"):
        inbox.add(mail)
    assert inbox.take(lambda mail: mail.whole() == b"67890")

    assert inbox.add(*raw(b"abcde")) == []
    assert whole(inbox.add(*raw(b"f"))) == [b"12345"]


def test_the_newest_is_kept_whatever_its_size() -> None:
    """One message alone may be over the bound in bytes: somebody may want just it."""
    inbox = Inbox(Limits(unclaimed=10))
    small, large = raw(b"small", b"x" * 100)
    inbox.add(small)

    assert inbox.add(large) == [small]
    assert inbox.take(None) is large
    assert inbox.add(small) == []


def test_a_bound_of_0_is_none() -> None:
    """0 switches each of both limits off."""
    inbox = Inbox(Limits(unclaimed=0, unclaimed_messages=0))

    assert not any(inbox.add(*raw(b"x" * 2000)) for _ in range(2000))
    assert len(inbox.mails) == 2000


# --- on a client -----------------------------------------------------------------


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
