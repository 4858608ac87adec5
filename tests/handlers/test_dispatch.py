"""What a message is: a call, something for hisock itself, or unclaimed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hisock.errors import RemoteProtocolError
from hisock.handlers.dispatch import Call, NoHandler, resolve, unknown_command
from hisock.handlers.table import HandlerTable
from hisock.wire.frames import Bye, NoTLS, Rename

MIB = 1024 * 1024


def move(client: Any, message: Any) -> str:
    """A handler that tells what it got."""
    return f"{client} {message}"


@pytest.fixture
def table() -> HandlerTable:
    """The handlers of a server: ``move``, and the odd ``$5``."""
    made = HandlerTable(on_server=True)
    made.add("move", move)
    made.add("$5", move)
    return made


def test_a_handlers_message_is_a_call(table: HandlerTable) -> None:
    """A registered command is a call with its content."""
    what = resolve(table, b"move 1 2", by_client=True)

    assert isinstance(what, Call)
    assert (what.entry.command, what.content) == ("move", b"1 2")
    assert what.function("Ada", what.content) == "Ada b'1 2'"


@pytest.mark.parametrize("body", [b"", b"hello", b"moves 1", b"$$", b"$UNKNOWN$ x"])
def test_an_unclaimed_message(table: HandlerTable, body: bytes) -> None:
    """What no handler claims is told as that."""
    assert NoHandler() == resolve(table, body, by_client=True)


def test_a_dollar_alone_reserves_nothing(table: HandlerTable) -> None:
    """A command may begin with a dollar."""
    assert isinstance(resolve(table, b"$5 please", by_client=True), Call)


def test_reserved_words_come_first(table: HandlerTable) -> None:
    """No handler ever sees a reserved word, and each side has its own."""
    assert Rename("Ada") == resolve(table, b"$CHNAME$ Ada", by_client=True)
    assert NoHandler() == resolve(table, b"$CHNAME$ Ada", by_client=False)
    assert NoTLS() == resolve(table, b"$NOTLS$", by_client=False)
    assert Bye() == resolve(table, b"$DISCONN$", by_client=False)


def test_a_broken_reserved_word_is_told(table: HandlerTable) -> None:
    """What is reserved, and broken, is their mistake."""
    with pytest.raises(RemoteProtocolError):
        resolve(table, b"$CHNAME$ \xff", by_client=True)


def test_an_unknown_command_is_explained(table: HandlerTable) -> None:
    """The sentence has the word, what was probably meant, and what there is."""
    line = move.__code__.co_firstlineno
    told = (
        "no handler for 'mov'. Did you mean 'move'? "
        f"(handlers: test_dispatch.py:{line} move, test_dispatch.py:{line} move)"
    )

    assert told == unknown_command(table, "mov")


def test_an_unknown_command_without_handlers() -> None:
    """Without handlers the sentence says so."""
    table = HandlerTable(on_server=False)

    assert unknown_command(table, "x") == "no handler for 'x'. (handlers: none)"


def test_an_explanation_stays_short(table: HandlerTable) -> None:
    """Neither a long word, nor what is no text, nor many handlers fill a log (T23)."""
    for number in range(100):
        table.add(f"command {number}", lambda client: None)
    told = unknown_command(table, "\ufffd\r\n\x1b" * 1000)

    assert len(told) < 1500
    assert told.isprintable()


@pytest.mark.parametrize("body", [b"m" * MIB, b"$" * MIB, b"\xff" * MIB, b" " * MIB])
def test_a_mebibyte_is_told_apart_in_no_time(table: HandlerTable, body: bytes) -> None:
    """Whatever the bytes are: linear time, for the look-up and for the text (T27)."""
    began = time.perf_counter()

    resolve(table, body, by_client=True)
    unknown_command(table, body.decode(errors="replace"))

    assert time.perf_counter() - began < 0.05
