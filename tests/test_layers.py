"""Who may import whom, as data; the picture in ``docs/design.md`` is this table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hisock

PACKAGE = Path(hisock.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

#: Layer → the layers of hisock it may import from. Longest name first decides.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "_near": set(),
    "types": {"errors"},
    "constants": set(),
    "wire": {"errors", "types", "wire"},
    "session": {"wire", "errors", "types", "session"},
    "handlers": {"errors", "types", "_near", "wire", "handlers"},
    "hub": {"session", "wire", "errors", "types", "_near", "hub"},
    "web": {"wire", "errors", "types", "web"},
    "engine": {
        "_near",
        "web",
        "hub",
        "handlers",
        "session",
        "wire",
        "errors",
        "types",
        "engine",
    },
    "server": {"engine", "handlers", "wire", "errors", "types"},
    "client": {"engine", "handlers", "wire", "errors", "types"},
    "aio": {"engine", "errors", "types"},
    "utils": {"errors", "types", "wire"},
    "cli": {"hisock", "cli", "constants"},
    "__main__": {"cli"},
    "__init__": {"constants"},
}
#: What handlers, hub and engine use of the wire is its vocabulary, not its bytes.
RULES = {"wire", "session", "handlers", "hub"}
IO = {"socket", "select", "selectors", "asyncio", "threading", "ssl", "multiprocessing"}
CLOCK_AND_CHANCE = {"time", "random", "secrets", "os", "datetime"}
#: What the library asks of ``time``: nothing that somebody may set (F21).
CLOCK = {"monotonic", "sleep"}
#: What is not in the standard library, and who may import it.
THIRD_PARTY = {
    "msgspec": {"types", "wire", "handlers"},
    "websockets": {"wire"},
    "typer": {"cli"},
    "rich": {"cli"},
    "cryptography": {"engine"},
    "prometheus_client": {"web"},
}
#: The modules that import asyncio, which costs 30 ms.
OF_ASYNCIO = {
    "aio",
    "engine.alarms",
    "engine.awaiting",
    "engine.client_verbs",
    "engine.tasks",
    "engine.watch",
}
#: What runs what it reads.
EXECUTING = {"pickle", "marshal", "shelve", "yaml", "dill", "jsonpickle", "code"}
#: Attributes whose names stand in a variable: fields and options of our own classes,
#: of the user's hints, and of the standard library. None is read from a wire.
OUR_WORDS = {
    ("__init__", "name"),
    ("engine.dial", "option"),
    ("engine.face", "verb"),
    ("engine.log", "attribute"),
    ("engine.proof", "key"),
    ("handlers.cast", "name"),
    ("handlers.table", "n"),
    ("types", "field"),
    ("web.files", "flag"),
    ("wire.greeting", "name"),
}
#: A group that is repeated and repeats something itself: ``(a+)+``.
RUNS_AWAY = re.compile(r"[+*}]\)[+*{]")
#: Who imports one of them late, and only when a coroutine is to run.
LATE = {("engine.serve", "engine.tasks"), ("engine.server_face", "engine.awaiting")}


def layer_of(path: Path) -> str:
    """The first folder of a module, or its name at the root."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, except for type checkers."""
    for node in ast.walk(_without_type_checking(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: relative import"
            yield node.module or ""


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards_only(path: Path) -> None:
    """A module imports only from the layers below it."""
    layer = layer_of(path)
    for name in imports_of(path):
        if name.split(".")[0] == "hisock":
            target = name.split(".")[1] if "." in name else "hisock"
            assert target in MAY_IMPORT[layer], f"{layer} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rules_do_no_io_and_have_no_clock(path: Path) -> None:
    """Below the engine nobody touches sockets, threads, clocks or chance."""
    found = {name.split(".")[0] for name in imports_of(path)}
    if layer_of(path) in RULES:
        assert not found & (IO | CLOCK_AND_CHANCE)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_third_party_only_where_it_is_allowed(path: Path) -> None:
    """What is not in the standard library is imported by the wire, the handlers and
    the command line alone."""
    import sys

    for name in imports_of(path):
        root = name.split(".")[0]
        if root != "hisock" and root not in sys.stdlib_module_names:
            assert layer_of(path) in THIRD_PARTY.get(root, set()), f"imports {root}"


def test_every_layer_has_its_row() -> None:
    """The table names exactly the layers that there are."""
    assert {layer_of(path) for path in MODULES} == set(MAY_IMPORT)


def name_of(path: Path) -> str:
    """A module's name behind ``hisock.``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported_at_once(path: Path) -> set[str]:
    """Modules that a file imports when it is imported itself."""
    tree = _without_type_checking(ast.parse(path.read_text()))
    outside: list[ast.stmt] = []
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            outside.append(node)
            waiting += [
                c for c in ast.iter_child_nodes(node) if isinstance(c, ast.stmt)
            ]
    found: set[str] = set()
    for node in outside:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def test_asyncio_stands_in_few_modules() -> None:
    """Only what runs coroutines, or in a loop, imports asyncio."""
    users = {
        name_of(path)
        for path in MODULES
        if "asyncio" in {name.split(".")[0] for name in imports_of(path)}
    }

    assert users == OF_ASYNCIO


@pytest.mark.parametrize("start", ["server", "client", "utils"])
def test_the_blocking_faces_have_no_way_to_asyncio(start: str) -> None:
    """Neither a face that is turned by hand nor anything it imports brings it."""
    files = {name_of(path): path for path in MODULES}
    reached: dict[str, str] = {}
    waiting = [(start, start)]
    while waiting:
        name, way = waiting.pop()
        if name in files and name not in reached:
            reached[name] = way
            for imported in imported_at_once(files[name]):
                below = imported.removeprefix("hisock.")
                waiting.append((below, f"{way} > {below}"))

    assert len(reached) > 3
    assert [reached[name] for name in OF_ASYNCIO & set(reached)] == []


def test_what_is_imported_late_is_known() -> None:
    """A server imports what runs coroutines when there is one to run, and nobody
    else does so."""
    late = set()
    for path in MODULES:
        if name_of(path) in OF_ASYNCIO:
            continue
        for name in set(imports_of(path)) - imported_at_once(path):
            below = name.removeprefix("hisock.")
            if below in OF_ASYNCIO:
                late.add((name_of(path), below))

    assert late == LATE


def test_files_and_functions_stay_small() -> None:
    """No file over 600 lines, no function over 60."""
    for path in MODULES:
        text = path.read_text()
        assert text.count("\n") <= 600, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 60, f"{path.name}: {node.name} has {length} lines"


def test_t15_nothing_is_executed_that_came_from_outside() -> None:
    """No pickle, marshal, eval or exec anywhere (CWE-502, CWE-95)."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & EXECUTING, path.name


def test_t15_no_attribute_is_chosen_by_a_stranger() -> None:
    """``getattr`` and its like take a word that stands there, or one of those places
    where the word is known to be ours."""
    found: set[tuple[str, str]] = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and len(node.args) > 1):
                continue
            called = ast.unparse(node.func)
            if called in {"getattr", "setattr", "delattr", "import_module"}:
                word = node.args[1]
                if not isinstance(word, ast.Constant):
                    found.add((name_of(path), ast.unparse(word)))

    assert found == OUR_WORDS


def test_t12_nothing_is_decompressed() -> None:
    """There is no compression, so there is no bomb; TLS has none since 1.3, and for
    1.2 a context of the standard library refuses it."""
    import ssl

    for path in MODULES:
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & {"zlib", "gzip", "bz2", "lzma", "zipfile", "tarfile"}
    for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        assert ssl.SSLContext(kind).options & ssl.OP_NO_COMPRESSION


def test_t27_patterns_are_few_and_plain() -> None:
    """Nothing repeats what repeats already, which is what makes a search run away;
    and a pattern is no one's but ours, so none is put together while we run."""
    patterns: set[str] = set()
    for path in MODULES:
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re."):
                pattern = node.args[0]
                known = ast.unparse(pattern)
                if isinstance(pattern, ast.Name):
                    assert f"\n{known}: Final" in text, f"{path.name}: {known}"
                else:
                    assert isinstance(pattern, ast.Constant), f"{path.name}: {known}"
                patterns.add(known)

    assert len(patterns) < 12
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                value = node.value
                word = value if isinstance(value, str) else value.decode("latin-1")
                assert not RUNS_AWAY.search(word), f"{path.name}: {word!r}"


def test_the_library_never_prints() -> None:
    """Only the prompts of 1.1 and the command line write to the terminal."""
    for path in MODULES:
        if layer_of(path) in {"cli", "utils"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"print", "input"}, path.name


def test_f21_nobody_looks_at_the_wall_clock() -> None:
    """Somebody may set it: only a certificate's dates are of the calendar, and what
    ``logging`` writes in front of a line. All else is of the monotonic clock."""
    asked: set[str] = set()
    of_calendar: set[str] = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(value=ast.Name(id="time"), attr=name):
                    asked.add(name)
                case ast.ImportFrom(module="time", names=names):
                    asked.update(each.name for each in names)
        if {"datetime", "calendar"} & set(imports_of(path)):
            of_calendar.add(name_of(path))

    assert "monotonic" in asked
    assert asked <= CLOCK
    assert of_calendar == {"engine.certificates"}
