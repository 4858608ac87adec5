"""One real hisock 1.1 server or client, which does what its stdin says.

``record.py`` starts this file with 1.1 on the path, once for each real side; each line
on stdin is a call, each line on stdout what came of it. It must never import the
hisock that is being built.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Object: TypeAlias = dict[str, Json]

HOST = "127.0.0.1"
SERVER = "server"


class _Handled(Exception):
    """Raised by a client's handler: 1.1's blocking ``update`` never returns."""


def _handler(parameters: int, note: Callable[..., None]) -> Callable[..., None]:
    """A function with so many parameters, which 1.1 counts."""

    def none() -> None:
        note()

    def one(a: object) -> None:
        note(a)

    def two(a: object, b: object) -> None:
        note(a, b)

    def three(a: object, b: object, c: object) -> None:
        note(a, b, c)

    functions: tuple[Callable[..., None], ...] = (none, one, two, three)
    return functions[parameters]


class Actor:
    """Holds the real server or client inside an agent process."""

    _PARAMETERS: Mapping[str, Mapping[str, int]] = {
        SERVER: {"join": 1, "leave": 1, "name_change": 3, "group_change": 3},
        "client": {"force_disconnect": 0},
    }
    _USUAL: Mapping[str, int] = {SERVER: 2, "client": 1}

    def __init__(self, role: str) -> None:
        # By name, so that no type checker takes it for the hisock beside us.
        self._hisock = importlib.import_module("hisock")
        if self._hisock.__version__ != "1.1":
            raise SystemExit(f"this is hisock {self._hisock.__version__}, not 1.1")
        self._role = role
        self._handled: list[Json] = []
        self._it: Any = None

    def do(self, call: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Object:
        """Make one call and say what came of it."""
        self._handled.clear()
        if call == "start":
            return {"returned": self._start(args[0], **kwargs)}
        if call == "connect":
            self._connect(args[0], **kwargs)
            return {}
        method = functools.reduce(getattr, call.split("."), self._it)
        try:
            returned = method(*args)
        except _Handled:
            returned = None
        except TypeError as error:
            return {"raised": type(error).__name__}
        result: Object = {}
        if call in ("run", "update"):
            result["handled"] = list(self._handled)
        if call == "recv_raw":
            result["returned"] = _encode(returned)
        return result

    def _start(self, host: str, handlers: Sequence[str], header_len: int) -> int:
        self._it = self._hisock.start_server((host, 0), header_len=header_len)
        self._register(handlers)
        port: int = self._it.sock.getsockname()[1]
        return port

    def _connect(self, port: int, handlers: Sequence[str], **options: Any) -> None:
        self._it = self._hisock.connect((HOST, port), **options)
        self._register(handlers)

    def _register(self, handlers: Sequence[str]) -> None:
        for name in handlers:
            count = self._PARAMETERS[self._role].get(name, self._USUAL[self._role])
            note = functools.partial(self._note, name)
            self._it.on(name)(_handler(count, note))

    def _note(self, name: str, *args: object) -> None:
        self._handled.append({"handler": name, "args": _encode(args)})
        if self._role == "client":
            raise _Handled


def _encode(value: Any) -> Json:
    """Make JSON of a value; bytes become ``{"bytes": latin-1 text}``."""
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, dict):
        return {key: _encode(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(each) for each in value]
    plain: Json = value
    return plain


def _decode(value: Json) -> Any:
    if isinstance(value, dict):
        return str(value["bytes"]).encode("latin-1")
    return value


def _orders(source: IO[str]) -> Iterator[Object]:
    for line in source:
        order: Object = json.loads(line)
        yield order


def main(role: str) -> None:
    """Obey the lines on stdin, answer each with one on stdout."""
    answers, sys.stdout = sys.stdout, sys.stderr  # 1.1 prints now and then
    actor = Actor(role)
    for order in _orders(sys.stdin):
        args, kwargs = order["args"], order["kwargs"]
        assert isinstance(args, list)
        assert isinstance(kwargs, dict)
        result = actor.do(str(order["call"]), [_decode(arg) for arg in args], kwargs)
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
