"""A handler's parameters, read and checked when it is registered."""

from __future__ import annotations

import functools
import typing
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from hisock.errors import HandlerSignatureError
from hisock.handlers.signature import Signature, read_signature
from hisock.types import ClientInfo

ON_SERVER = ("client", "message")
ON_CLIENT = ("message",)


def read(
    function: Callable[..., Any], offered: tuple[str, ...] = ON_SERVER
) -> Signature:
    """What a handler of ``move`` takes."""
    return read_signature(function, "move", offered)


def refusal(function: Any, offered: tuple[str, ...] = ON_SERVER) -> str:
    """The text with which a handler of ``move`` is refused."""
    with pytest.raises(HandlerSignatureError) as caught:
        read(function, offered)
    return str(caught.value)


class Game:
    """Handlers of all shapes."""

    def method(self, client: ClientInfo, move: int) -> None: ...

    @staticmethod
    def static(client: ClientInfo, move: int) -> None: ...

    @classmethod
    def of_class(cls, client: ClientInfo, move: int) -> None: ...

    def __call__(self, client: ClientInfo, move: int) -> None: ...


class Waits:
    """Called, it gives a coroutine."""

    async def __call__(self, client: ClientInfo, move: int) -> None: ...


def nothing() -> None: ...
def one(client: Any) -> None: ...
def two(client: Any, message: str) -> None: ...
def three(client: Any, x: int, y: int) -> None: ...
def optional(client: Any, message: Any = None, more: int = 1) -> None: ...
def all_of_them(*arguments: int) -> None: ...
def one_and_all(client: Any, *arguments: int) -> None: ...
def by_position(client: Any, message: int, /) -> None: ...
def with_keywords(client: Any, message: int, *, more: int = 1, **rest: Any) -> None: ...
def needs_keyword(client: Any, message: int, *, more: int) -> None: ...
def plain_any(client: ClientInfo, message: Any) -> None: ...
def plain_none(client, message: None) -> None: ...  # type: ignore[no-untyped-def]
def dotted(client: Any, message: typing.Sequence[int]) -> None: ...
def a_set(client: Any, message: set) -> None: ...  # type: ignore[type-arg]
def items(client: Any, message: list[int]) -> None: ...
def made_up(client: Any, message: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def only_text(message: str) -> None: ...
def only_client(client: ClientInfo) -> None: ...


@functools.wraps(two)
def wrapped(*arguments: Any) -> None: ...


async def later(client: Any, message: str) -> None: ...
async def endless(client: Any, message: str) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "takes", "hint"),
    [
        (nothing, 0, None),
        (one, 1, None),
        (only_client, 1, None),
        (two, 2, str),
        (optional, 2, Any),
        (all_of_them, 2, None),
        (one_and_all, 2, None),
        (by_position, 2, int),
        (with_keywords, 2, int),
        (plain_any, 2, Any),
        (plain_none, 2, None),
        (wrapped, 2, str),
        (Game().method, 2, int),
        (Game.static, 2, int),
        (Game.of_class, 2, int),
        (functools.partial(three, y=1), 2, int),
        (functools.partial(three, None), 2, int),
        (lambda client, message: None, 2, None),
        (lambda: None, 0, None),
        (print, 2, None),
        (Game(), 2, int),
    ],
    ids=repr,
)
def test_a_handler_takes_as_much_as_it_likes(
    function: Callable[..., Any], takes: int, hint: Any
) -> None:
    """No, one or two parameters of any shape; the last one's hint is read."""
    signature = read(function)

    assert (takes, hint) == (signature.takes, signature.hint)


@pytest.mark.parametrize(
    ("function", "takes", "hint"),
    [(nothing, 0, None), (only_text, 1, str), (lambda message: None, 1, None)],
    ids=repr,
)
def test_a_clients_handler_gets_the_message_only(
    function: Callable[..., Any], takes: int, hint: Any
) -> None:
    """On a client the first parameter is the message."""
    signature = read(function, ON_CLIENT)

    assert (takes, hint, None) == (
        signature.takes,
        signature.hint,
        signature.client_hint,
    )


def test_the_hint_on_the_client_is_kept() -> None:
    """``funcs`` of 1.1 shows it."""
    assert ClientInfo is read(only_client).client_hint
    assert read(nothing).client_hint is None


def test_an_event_has_no_message() -> None:
    """What an event offers is not converted, so hints on it are the user's own."""
    signature = read_signature(three, "name_change", ("client", "old_name", "new_name"))

    assert (signature.takes, signature.hint) == (3, None)


def test_a_builtin_that_does_not_tell_gets_everything() -> None:
    """Where Python knows no parameters, all are given."""
    signature = read(iter)

    assert (
        signature.takes,
        signature.hint,
        signature.where,
        signature.source,
    ) == (2, None, "iter", "iter")


def test_it_is_told_where_a_handler_stands() -> None:
    """Texts name file, line and function; logs the whole path."""
    signature = read(two)
    line = two.__code__.co_firstlineno

    assert f"test_signature.py:{line} two" == signature.where
    assert f"{__file__}:{line}" == signature.source
    assert read(functools.partial(three, y=1)).where.endswith(" three")
    assert read(wrapped).where == signature.where
    assert read(Game().method).where.endswith(" Game.method")


def test_an_object_that_is_called_is_told_by_its_repr() -> None:
    """Something without a line of its own is shown as Python shows it."""
    assert read(Game()).where.startswith("<")
    assert len(read(Game()).where) <= 80


@pytest.mark.parametrize("offered", [ON_SERVER, ON_CLIENT])
def test_too_many_parameters(offered: tuple[str, ...]) -> None:
    """A handler that needs more than it would get fails where it is registered."""
    line = three.__code__.co_firstlineno
    told = (
        f"on('move') takes ({', '.join(offered)}); test_signature.py:{line} three "
        "takes 3 parameters (client, x, y)"
    )

    assert told == refusal(three, offered)


def test_a_keyword_that_nothing_gives() -> None:
    """A required keyword is named."""
    told = "needs_keyword needs the keyword 'more', which nothing gives"

    assert refusal(needs_keyword).endswith(told)


@pytest.mark.parametrize(
    "function", [later, endless, functools.partial(later)], ids=["def", "yield", "part"]
)
def test_an_async_handler(function: Callable[..., Any]) -> None:
    """An async function would never run, so it is refused."""
    assert "is async; this version calls plain functions only" in refusal(function)


def test_an_object_with_an_async_call() -> None:
    """Neither would an object whose ``__call__`` is async."""
    assert "is async" in refusal(Waits())


@pytest.mark.parametrize("wrong", [None, 5, "move", [two]])
def test_what_is_no_function(wrong: Any) -> None:
    """``on("move")(5)`` is refused by name."""
    assert refusal(wrong).endswith(f"is no function: {wrong!r:.80}")


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (dotted, "typing.Sequence[int]"),
        (a_set, "set"),
        (items, "list[int]"),
        (made_up, "Nowhere"),
    ],
    ids=["dotted", "set", "list of", "made up"],
)
def test_a_hint_that_nothing_converts_to(
    function: Callable[..., Any], named: str
) -> None:
    """A hint that cannot be served is named, with those that can."""
    told = (
        f"asks for {named}; a message can be converted to "
        "bytes, str, int, float, list, dict"
    )

    assert told in refusal(function)


def test_a_message_in_the_clients_place() -> None:
    """One parameter with a message's hint is a mistake; the text shows two."""
    told = (
        "only_text has one parameter with the hint str, but the first gets the client. "
        "Write two: (client, message: str)"
    )

    assert refusal(only_text).endswith(told)


def test_hints_are_read_without_future_annotations_too() -> None:
    """Hints that are types already are taken as they are."""

    def handler(client, message):  # type: ignore[no-untyped-def]
        pass

    handler.__annotations__ = {"client": ClientInfo, "message": int}

    assert (int, ClientInfo) == (read(handler).hint, read(handler).client_hint)
