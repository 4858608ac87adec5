"""The public names and signatures, pinned: a change of API is a change of ``api.txt``.

``python tests/test_public_api.py`` writes the file anew.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import hisock

PINNED = Path(__file__).with_name("api.txt")
PACKAGE = Path(hisock.__file__).parent
API = [
    f"hisock.{path.stem}"
    for path in sorted(PACKAGE.glob("*.py"))
    if not path.stem.startswith("_")
]


def describe() -> Iterator[str]:
    """A line for every public name, method and attribute."""
    for name in ["hisock", *API]:
        module = importlib.import_module(name)
        for public in sorted(module.__all__):
            value = getattr(module, public)
            yield f"{name}.{public}{_signature(value)}"
            if inspect.isclass(value) and value.__module__ == name:
                yield from _members(f"{name}.{public}", value)


def _members(owner: str, kind: type) -> Iterator[str]:
    for name in sorted(dir(kind)):
        value = inspect.getattr_static(kind, name)
        inherited = any(name in vars(base) for base in (Exception, dict, object))
        if name.startswith("_") or inherited:
            continue
        if isinstance(value, property):
            yield f"{owner}.{name}: property"
        elif inspect.isfunction(value):
            yield f"{owner}.{name}{inspect.signature(value)}"


def _signature(value: object) -> str:
    if inspect.ismodule(value):
        return ": module"
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__)
        if issubclass(value, Exception):
            return f"({bases}) code={getattr(value, 'code', None)!r}"
        return f"({bases}) {inspect.signature(value)}"
    if inspect.isfunction(value):
        return str(inspect.signature(value))
    return ""


def test_the_public_api_is_the_pinned_one() -> None:
    """No public name or signature changes unnoticed."""
    assert PINNED.read_text().splitlines() == list(describe())


def _modules() -> list[ModuleType]:
    names = [
        "hisock." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in sorted(PACKAGE.rglob("*.py"))
    ]
    return [importlib.import_module(name.removesuffix(".__init__")) for name in names]


@pytest.mark.parametrize("module", _modules(), ids=lambda m: m.__name__)
def test_all_is_a_tuple_of_what_is_public(module: ModuleType) -> None:
    """``__all__`` names what exists; what it does not name begins with ``_``, or is
    imported, or is a constant."""
    source = Path(module.__file__ or "").read_text()
    if "__all__" not in source:
        assert "def " not in source
        assert "class " not in source
        return
    assert isinstance(module.__all__, tuple)
    for name in module.__all__:
        assert hasattr(module, name), name
    for name, value in vars(module).items():
        mine = getattr(value, "__module__", None) == module.__name__
        defined = inspect.isfunction(value) or inspect.isclass(value)
        if mine and defined and not name.startswith("_"):
            assert name in module.__all__, name


@pytest.mark.parametrize("module", _modules(), ids=lambda m: m.__name__)
def test_everything_public_has_a_docstring(module: ModuleType) -> None:
    """Modules, classes, methods and functions say what they are for."""
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            assert value.__doc__, name
        if inspect.isclass(value):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    assert inspect.getdoc(getattr(value, method)), f"{name}.{method}"


def test_the_names_of_1_1_have_the_signatures_of_1_1() -> None:
    """What the 1.1 manual documents takes the same arguments in the same order."""
    contract = {
        "HiSockServer": "addr blocking max_connections header_len tls",
        "HiSockClient": "addr name group blocking header_len cache_size",
        "start_server": "addr blocking max_connections header_len",
        "start_threaded_server": "addr blocking max_connections header_len",
        "connect": "addr name group blocking header_len cache_size",
        "threaded_connect": "addr name group blocking header_len cache_size",
        "input_client_config": "ip_prompt port_prompt name_prompt group_prompt",
        "input_server_config": "ip_prompt port_prompt",
        "get_local_ip": "",
        "ipstr_to_tup": "formatted_ip",
        "iptup_to_str": "formatted_tuple",
        "HiSockServer.send_client": "self client command content",
        "HiSockServer.send_client_raw": "self client content",
        "HiSockServer.send_group": "self group command content",
        "HiSockServer.send_group_raw": "self group content",
        "HiSockServer.send_all_clients": "self command content",
        "HiSockServer.get_client": "self client",
        "HiSockServer.get_group": "self group",
        "HiSockServer.get_all_clients": "self key",
        "HiSockServer.get_addr": "self",
        "HiSockServer.disconnect_client": "self client",
        "HiSockServer.disconnect_all_clients": "self",
        "HiSockServer.on": "self command",
        "HiSockServer.run": "self timeout",  # which 4.0 adds
        "HiSockServer.close": "self",
        "ThreadedHiSockServer.start_server": "self",
        "ThreadedHiSockServer.stop_server": "self",
        "ThreadedHiSockServer.join": "self",
        "HiSockClient.on": "self command",
        "HiSockClient.send": "self command content",
        "HiSockClient.raw_send": "self content",
        "HiSockClient.recv_raw": "self",
        "HiSockClient.update": "self timeout",  # which 4.0 adds
        "HiSockClient.change_name": "self new_name",
        "HiSockClient.change_group": "self new_group",
        "HiSockClient.get_cache": "self idx",
        "HiSockClient.get_client": "self client",
        "HiSockClient.close": "self",
        "ThreadedHiSockClient.start_client": "self",
        "ThreadedHiSockClient.stop_client": "self",
        "ThreadedHiSockClient.join": "self",
    }
    for name, expected in contract.items():
        owner, _, method = name.partition(".")
        value = getattr(hisock, owner)
        function = getattr(value, method) if method else value
        kinds = inspect.Parameter
        parameters = [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is kinds.POSITIONAL_OR_KEYWORD
        ]
        assert parameters == expected.split(), name


def test_handlers_has_every_decorator() -> None:
    """What a server or client registers can be collected beforehand, too."""
    faces = {*dir(hisock.HiSockServer), *dir(hisock.HiSockClient)}
    decorators = {name for name in faces if name == "on" or name.startswith("on_")}
    assert len(decorators) == 6
    assert {*decorators, "every", "authenticate"} <= set(dir(hisock.Handlers))


if __name__ == "__main__":
    PINNED.write_text("".join(f"{line}\n" for line in describe()))
