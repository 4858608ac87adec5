"""A handler's parameters, read once when it is registered, and checked there.

A wrong handler fails where the user's file defines it, not when the first message
comes. A function is never called to see whether it takes the arguments.
"""

from __future__ import annotations

__all__ = ("Signature", "read_signature")

import builtins
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hisock.errors import HandlerSignatureError
from hisock.handlers.cast import cast_for, castable
from hisock.types import ClientInfo


@dataclass(frozen=True, slots=True)
class Signature:
    """What a handler takes.

    Attributes:
        takes: How many of the offered arguments it is called with.
        hint: The type that its message is converted to; ``None`` for as sent.
        client_hint: What the hint on a server handler's client is, if any.
        where: ``file.py:12 name``, for error texts.
        source: The path of the file and the line, for logs.
    """

    takes: int
    hint: Any
    client_hint: Any
    where: str
    source: str


def read_signature(
    function: Callable[..., Any], command: str, offered: tuple[str, ...]
) -> Signature:
    """Read and check a function that is to handle ``command``.

    Args:
        function: What the user decorated.
        command: The command or event.
        offered: The names of the arguments it will be offered, in order; the last
            one is ``message`` where it is converted to the hint.

    Raises:
        HandlerSignatureError: It takes other parameters than it is offered, or a
            hint that nothing converts to.
    """
    where, source = _place(function)
    expects = f"on({command!r}) takes ({', '.join(offered)}); {where}"
    if not callable(function):
        raise HandlerSignatureError(f"{expects} is no function: {function!r:.80}")
    called = [function, inspect.getattr_static(type(function), "__call__", None)]
    if any(inspect.isgeneratorfunction(code) for code in called):
        raise HandlerSignatureError(
            f"{expects} is a generator, which would never run; send what it yields"
        )
    if any(
        inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code)
        for code in called
    ):
        raise HandlerSignatureError(
            f"{expects} is async; this version calls plain functions only"
        )
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # a builtin that does not tell
        return Signature(len(offered), None, None, where, source)
    positional = _positional(list(parameters), len(offered), expects)
    hints = [_resolve(function, parameter) for parameter in positional]
    client_hint = hints[0] if hints and offered[:1] == ("client",) else None
    message_hint = None
    if offered[-1:] == ("message",):
        message_hint = _message_hint(hints, offered, expects)
    return Signature(len(positional), message_hint, client_hint, where, source)


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


def _message_hint(hints: list[Any], offered: tuple[str, ...], expects: str) -> Any:
    """The hint of the message, or of nothing if the handler does not take it."""
    if len(hints) < len(offered):
        only = hints[0] if hints else None
        if only not in (None, Any, object, ClientInfo):
            raise HandlerSignatureError(
                f"{expects} has one parameter with the hint {_name(only)}, but the "
                f"first gets the client. Write two: (client, message: {_name(only)})"
            )
        return None
    hint = hints[len(offered) - 1]
    try:
        cast_for(hint)
    except (KeyError, TypeError):
        raise HandlerSignatureError(
            f"{expects} asks for {_name(hint)}; "
            f"a message can be converted to {castable()}"
        ) from None
    return hint


def _resolve(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The hint of one parameter as a type; text is looked up where it was written."""
    hint = parameter.annotation
    if hint is parameter.empty:
        return None
    if not isinstance(hint, str):
        return hint
    inner = inspect.unwrap(getattr(function, "__func__", function))
    if hint.rpartition(".")[2] == ClientInfo.__name__:
        return ClientInfo  # however it was imported, or for type checkers alone
    names = {**vars(builtins), **getattr(inner, "__globals__", {})}
    # A dotted or made-up name stays text, which no cast knows.
    return names.get(hint, hint)


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
