"""A handler's parameters, read once when it is registered, and checked there.

A wrong handler fails where the user's file defines it, not when the first message
comes. A function is never called to see whether it takes the arguments.
"""

from __future__ import annotations

__all__ = ("Kind", "Signature", "read_signature")

import functools
import inspect
import typing
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final, Literal, TypeAlias

from hisock.errors import HandlerSignatureError
from hisock.handlers.cast import cast_for, castable
from hisock.types import ClientInfo
from hisock.wire.frames import Value

#: What calling a handler gives: its result, a coroutine, or what makes items.
Kind: TypeAlias = Literal["plain", "coroutine", "generator", "async_generator"]

#: Hints of a handler's client, by name: they may be imported for type checkers alone.
_CLIENTS: Final = frozenset({"ClientInfo", "AsyncClientInfo"})


class Signature(Value, frozen=True):
    """What a handler takes, and what it is.

    Attributes:
        takes: How many of the offered arguments it is called with.
        hint: The type that its message is converted to; ``None`` for as sent.
        client_hint: What the hint on a server handler's client is, if any.
        where: ``file.py:12 name``, for error texts.
        source: The path of the file and the line, for logs.
        kind: What calling it gives.
    """

    takes: int
    hint: Any
    client_hint: Any
    where: str
    source: str
    kind: Kind = "plain"


def read_signature(
    function: Callable[..., Any],
    command: str,
    offered: tuple[str, ...],
    *,
    kinds: frozenset[str] = frozenset({"plain"}),
) -> Signature:
    """Read and check a function that is to handle ``command``.

    Args:
        function: What the user decorated.
        command: The command or event.
        offered: The names of the arguments it will be offered, in order; the last
            one is ``message`` where it is converted to the hint.
        kinds: Which kinds of function can be called here; see ``Kind``.

    Raises:
        HandlerSignatureError: It takes other parameters than it is offered, is of
            another kind, or has a hint that nothing converts to.
    """
    where, source = _place(function)
    expects = f"on({command!r}) takes ({', '.join(offered)}); {where}"
    if not callable(function):
        raise HandlerSignatureError(f"{expects} is no function: {function!r:.80}")
    kind = _kind(function)
    if kind not in kinds:
        raise HandlerSignatureError(f"{expects} {_cure(kind, kinds)}")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # a builtin that does not tell
        return Signature(len(offered), None, None, where, source, kind)
    positional = _positional(list(parameters), len(offered), expects)
    client_hint = message_hint = None
    if positional and offered[:1] == ("client",):
        client_hint = _client_hint(function, positional[0])
    if len(positional) == len(offered) and offered[-1:] == ("message",):
        message_hint = _message_hint(function, positional[-1], expects)
    elif offered == ("client", "message"):
        _check_only(client_hint, expects)
    return Signature(len(positional), message_hint, client_hint, where, source, kind)


def _kind(function: Callable[..., Any]) -> Kind:
    """What calling it gives, as far as it tells; it is not called to see."""
    bare = _bare(function)
    called = [bare, _bare(inspect.getattr_static(type(bare), "__call__", None))]
    if any(map(inspect.isasyncgenfunction, called)):
        return "async_generator"
    if any(map(inspect.iscoroutinefunction, called)):
        return "coroutine"
    return "generator" if any(map(inspect.isgeneratorfunction, called)) else "plain"


def _cure(kind: Kind, kinds: frozenset[str]) -> str:
    """What is wrong with a handler of this kind here, and what would do."""
    if kind == "generator":
        return "is a generator, which would never run; send what it yields"
    if kind == "async_generator" and "coroutine" in kinds:
        return "is an async generator, which would never run; send what it yields"
    return (
        "is async; this version calls plain functions only "
        "(async def handlers work on every server and in hisock.aio)"
    )


def _positional(
    parameters: list[inspect.Parameter], offered: int, expects: str
) -> list[inspect.Parameter]:
    """The parameters that get the offered arguments."""
    kinds = inspect.Parameter
    positional: list[inspect.Parameter] = []
    for parameter in parameters:
        if parameter.kind is kinds.VAR_POSITIONAL:
            rest = offered - len(positional)
            positional += [parameter.replace(annotation=parameter.empty)] * rest
        elif parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
            positional.append(parameter)
        elif parameter.kind is kinds.KEYWORD_ONLY and parameter.default is kinds.empty:
            raise HandlerSignatureError(
                f"{expects} needs the keyword {parameter.name!r}, which nothing gives"
            )
    required = [one for one in positional if one.default is kinds.empty]
    if len(required) > offered:
        names = ", ".join(parameter.name for parameter in positional)
        raise HandlerSignatureError(
            f"{expects} takes {len(positional)} parameters ({names})"
        )
    return positional[:offered]


def _message_hint(
    function: Callable[..., Any], parameter: inspect.Parameter, expects: str
) -> Any:
    """The hint of the message, if content can be converted to it."""
    try:
        hint = _resolve(function, parameter)
        cast_for(hint)
    except Exception as error:  # a hint in quotes may be anything
        reason = error.args[0] if isinstance(error, KeyError) else error
        raise HandlerSignatureError(
            f"{expects} asks for {_name(parameter.annotation)}; a message can be "
            f"converted to {castable()} ({reason!s:.200})"
        ) from None
    return hint


def _client_hint(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The hint of the client; it is only shown, so it need not be found."""
    try:
        return _resolve(function, parameter)
    except Exception:
        hint = parameter.annotation
        is_plain = isinstance(hint, str) and _last_name(hint) == ClientInfo.__name__
        return ClientInfo if is_plain else hint


def _check_only(hint: Any, expects: str) -> None:
    """The only parameter gets the client: a hint of a message is a mistake."""
    if hint is not None and hint is not Any and hint is not object:
        if _is_client(hint):
            return
        raise HandlerSignatureError(
            f"{expects} has one parameter with the hint {_name(hint)}, but the "
            f"first gets the client. Write two: (client, message: {_name(hint)})"
        )


def _is_client(hint: Any) -> bool:
    if isinstance(hint, str):
        return all(_last_name(part) in _CLIENTS for part in hint.split("|"))
    if isinstance(hint, type):
        return issubclass(hint, ClientInfo) or hint.__name__ in _CLIENTS
    members = typing.get_args(hint)
    return bool(members) and all(map(_is_client, members))


def _last_name(hint: str) -> str:
    return hint.strip(" '\"").rpartition(".")[2]


def _resolve(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The hint of one parameter as a type; text is looked up where it was written.

    Raises:
        Exception: Whatever looking up a hint in quotes may raise.
    """
    hint = parameter.annotation
    if hint is parameter.empty:
        return None
    inner = _written(function)
    found = typing.get_type_hints(
        SimpleNamespace(__annotations__={"hint": hint}),
        {**getattr(inner, "__globals__", {})},
        _enclosing(inner),
        include_extras=True,
    )["hint"]
    return None if found is type(None) else found


def _written(function: Any) -> Any:
    """The function that the user wrote, which knows the names around it."""
    inner = inspect.unwrap(_bare(function))
    if isinstance(inner, type):
        return _bare(inspect.getattr_static(inner, "__init__"))
    if hasattr(inner, "__code__"):
        return inner
    return _bare(inspect.getattr_static(type(inner), "__call__"))


def _enclosing(function: Any) -> dict[str, Any]:
    """The names that a function took from the functions around it."""
    cells = getattr(function, "__closure__", None) or ()
    names = function.__code__.co_freevars if cells else ()
    found = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _bare(function: Any) -> Any:
    """The function in partials, methods and static methods."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__func__"):
            function = function.__func__
        else:
            return function


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    """Where a function stands: short for texts, whole for logs."""
    inner = getattr(function, "func", function)  # functools.partial
    inner = inspect.unwrap(inner) if callable(inner) else inner
    name = getattr(inner, "__qualname__", repr(function)[:80])
    code = getattr(inner, "__code__", None)
    if code is None:
        return name, name
    path = code.co_filename
    short = path.replace("\\", "/").rpartition("/")[2]
    line = code.co_firstlineno
    return f"{short}:{line} {name}", f"{path}:{line}"
