"""A handler's parameters, read and checked when it is registered."""

from __future__ import annotations

import functools
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import msgspec
import pytest
from tests.spelled import spelled

from hisock.errors import HandlerSignatureError
from hisock.handlers.signature import Signature, read_signature
from hisock.types import ClientInfo

if TYPE_CHECKING:
    import hisock.types as only_for_checkers
    from hisock.types import ClientInfo as AsyncClientInfo
    from hisock.types import ClientInfo as Client

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


class Score:
    """Made from a client and a message."""

    def __init__(self, client: ClientInfo, points: list[int]) -> None: ...


@dataclass
class Point:
    """What a message may be."""

    x: int


@dataclass
class Line:
    """Another, that looks the same from outside."""

    y: int


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
def a_class(client: Any, message: Game) -> None: ...
def items(client: Any, message: list[Game]) -> None: ...
def two_of_them(client: Any, message: Point | Line) -> None: ...
def half_found(client: Any, message: list[Nowhere]) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def made_up(client: Any, message: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def only_text(message: str) -> None: ...
def only_client(client: ClientInfo) -> None: ...


@functools.wraps(two)
def wrapped(*arguments: Any) -> None: ...


async def later(client: Any, message: str) -> None: ...
async def endless(client: Any, message: str) -> AsyncIterator[int]:
    yield 1


def count(client: Any, upto: int) -> Iterator[int]:
    yield upto


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
        (dotted, 2, typing.Sequence[int]),
    ],
    ids=spelled,
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
    ids=spelled,
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
    told = refusal(function)

    assert "is async; this version calls plain functions only" in told
    assert told.endswith("(async def handlers work on every server and in hisock.aio)")


def test_an_object_with_an_async_call() -> None:
    """Neither would an object whose ``__call__`` is async."""
    assert "is async" in refusal(Waits())


@pytest.mark.parametrize("wrong", [None, 5, "move", [two]])
def test_what_is_no_function(wrong: Any) -> None:
    """``on("move")(5)`` is refused by name."""
    assert refusal(wrong).endswith(f"is no function: {wrong!r:.80}")


@pytest.mark.parametrize(
    ("function", "named", "why"),
    [
        (a_class, "Game", "nothing converts to Game"),
        (items, "list[Game]", "nothing converts to Game"),
        (two_of_them, "Point | Line", "more than one dataclass"),
        (made_up, "Nowhere", "name 'Nowhere' is not defined"),
        (half_found, "list[Nowhere]", "name 'Nowhere' is not defined"),
    ],
    ids=["class", "list of", "union", "made up", "half found"],
)
def test_a_hint_that_nothing_converts_to(
    function: Callable[..., Any], named: str, why: str
) -> None:
    """A hint that cannot be served is named, with those that can, and why."""
    told = refusal(function)

    assert f"asks for {named}" in told
    assert "a message can be converted to bytes, str, int, float, list, dict" in told
    assert "dataclasses, msgspec.Struct" in told
    assert why in told


@pytest.mark.parametrize("hint", ["1 +", "5", "Point.x.y", "Point | 5", "", "a b"])
def test_a_hint_that_is_no_hint(hint: str) -> None:
    """Whatever stands in quotes: the handler is refused, and the text shows it."""

    def handler(client, message):  # type: ignore[no-untyped-def]
        pass

    handler.__annotations__ = {"message": hint}

    assert f"asks for {hint}; " in refusal(handler)


def quoted(client: Any, message: "Optional[Point]") -> None: ...  # noqa: UP037, UP045
def a_point(client: Any, message: Point | None) -> None: ...
def sequence(client: Any, message: typing.Sequence[int]) -> None: ...
def limited(client: Any, message: Annotated[int, msgspec.Meta(ge=0)]) -> None: ...
def literal(client: Any, message: Literal["a"]) -> None: ...
def half_quoted(client: Any, message: list["Point"]) -> None: ...  # noqa: UP037


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (quoted, Optional[Point]),  # noqa: UP045
        (a_point, Point | None),
        (sequence, typing.Sequence[int]),
        (limited, Annotated[int, msgspec.Meta(ge=0)]),
        (literal, Literal["a"]),
        (half_quoted, list[Point]),
        (Score, list[int]),
        (functools.partial(functools.partial(three, x=1), y=1), None),
        (staticmethod(a_point), Point | None),
        (functools.partial(Game(), move=1), None),
    ],
    ids=range(10),
)
def test_hints_become_types(function: Callable[..., Any], hint: Any) -> None:
    """A hint in quotes, or under ``annotations``, is the type that it names."""
    assert hint == read(function).hint


def test_a_hint_is_looked_up_in_the_functions_around() -> None:
    """A class of an enclosing function is found where the handler uses it."""

    @dataclass
    class Local:
        x: int

    def handler(client: Any, message: list[Local]) -> Local:
        return Local(unassigned)

    assert list[Local] == read(handler).hint
    unassigned = 1


def test_a_class_given_as_an_object_needs_no_looking_up() -> None:
    """Without quotes a hint is a type already, also with quotes inside it."""

    @dataclass
    class Local:
        x: int

    def handler(client, message):  # type: ignore[no-untyped-def]
        pass

    handler.__annotations__ = {"message": Local}
    assert Local is read(handler).hint

    handler.__annotations__ = {"message": list["Point"]}
    assert list[Point] == read(handler).hint


class Mine(ClientInfo):
    """A client with more to it."""


def by_name(client: Client) -> None: ...
def asynchronous(client: AsyncClientInfo) -> None: ...
def dotted_client(client: only_for_checkers.ClientInfo) -> None: ...
def either(client: ClientInfo | AsyncClientInfo) -> None: ...
def mine(client: Mine) -> None: ...
def mine_or_not(client: Mine | ClientInfo) -> None: ...
def whatever(client: Nowhere, message: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (asynchronous, "AsyncClientInfo"),
        (dotted_client, ClientInfo),
        (either, "ClientInfo | AsyncClientInfo"),
        (mine, Mine),
        (mine_or_not, Mine | ClientInfo),
        (type("AsyncClientInfo", (), {}), None),
        (whatever, "Nowhere"),
    ],
    ids=range(7),
)
def test_the_clients_hint_need_not_be_found(
    function: Callable[..., Any], hint: Any
) -> None:
    """What the client is is known; a hint for type checkers alone is fine."""
    assert hint == read(function).client_hint


def test_a_class_of_that_name_is_a_client() -> None:
    """The client of an async handler is known by its name."""

    def handler(client):  # type: ignore[no-untyped-def]
        pass

    handler.__annotations__ = {"client": type("AsyncClientInfo", (), {})}

    assert read(handler).takes == 1


def test_a_clients_name_may_be_anything_that_is_imported() -> None:
    """``ClientInfo`` under another name for type checkers alone is not known."""
    assert "one parameter with the hint Client," in refusal(by_name)


ALL = frozenset({"plain", "coroutine", "generator", "async_generator"})


class Counts:
    """Called, it makes items."""

    def __call__(self, client: ClientInfo, upto: int) -> Iterator[int]:
        yield upto


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (two, "plain"),
        (Game(), "plain"),
        (Score, "plain"),
        (print, "plain"),
        (later, "coroutine"),
        (Waits(), "coroutine"),
        (Waits().__call__, "coroutine"),
        (functools.partial(later), "coroutine"),
        (functools.partial(Waits()), "coroutine"),
        (staticmethod(later), "coroutine"),
        (count, "generator"),
        (Counts(), "generator"),
        (functools.partial(count), "generator"),
        (endless, "async_generator"),
        (functools.partial(endless), "async_generator"),
    ],
    ids=spelled,
)
def test_the_kind_of_a_handler(function: Callable[..., Any], kind: str) -> None:
    """What calling it gives is read from it, and never tried."""
    assert kind == read_signature(function, "move", ON_SERVER, kinds=ALL).kind


@pytest.mark.parametrize("function", [count, Counts()], ids=["def", "call"])
def test_a_generator_where_nobody_takes_its_items(function: Callable[..., Any]) -> None:
    """A generator would never run, so it is refused with the cure."""
    told = "is a generator, which would never run; send what it yields"

    assert refusal(function).endswith(told)


def test_an_async_generator_where_nobody_takes_its_items() -> None:
    """Where coroutines run, the text on an async generator does not deny them."""
    with pytest.raises(HandlerSignatureError, match="is an async generator, which"):
        read_signature(
            endless, "move", ON_SERVER, kinds=frozenset({"plain", "coroutine"})
        )


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
