"""What an import costs and what it must not bring along, in fresh processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest


def run(code: str) -> str:
    """Run code in a bare interpreter and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return result.stdout


def modules_after(statement: str) -> set[str]:
    """The modules that a statement leaves in ``sys.modules``."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    return set(json.loads(run(code)))


def third_party_after(statement: str) -> set[str]:
    """What a statement brings that is neither ours nor the standard library's."""
    new = modules_after(statement) - modules_after("pass")
    roots = {name.split(".")[0] for name in new}
    return roots - {"hisock", *sys.stdlib_module_names}


@pytest.mark.parametrize(
    "name", ["connect", "start_server", "threaded_connect", "utils", "aio"]
)
def test_only_msgspec_is_third_party(name: str) -> None:
    """A face brings msgspec, with what that brings itself, and nothing else."""
    found = third_party_after(f"from hisock import {name}")
    assert found - {"typing_extensions"} == {"msgspec"}


@pytest.mark.parametrize(
    "statement",
    ["import hisock", "from hisock import HiSockError, CommandError, RemoteError"],
)
def test_the_door_and_the_leaves_bring_nothing_third_party(statement: str) -> None:
    """The door and the errors come from the standard library alone."""
    assert third_party_after(statement) == set()


@pytest.mark.parametrize("name", ["connect", "start_server", "threaded_connect"])
def test_no_blocking_face_brings_asyncio(name: str) -> None:
    """The blocking client, and the server turned by hand, need no asyncio."""
    assert "asyncio" not in modules_after(f"from hisock import {name}")


def test_a_blocking_dialogue_brings_no_asyncio() -> None:
    """Nor is it imported on the way: plain handlers, calls and streams need none."""
    assert run(
        "import sys, hisock\n"
        "with hisock.start_threaded_server(('127.0.0.1', 0)) as server:\n"
        "    server.on('double')(lambda client, number: number * 2)\n"
        "    server.on('count', threaded=True)(lambda client, number: number + 1)\n"
        "    def each(client, number):\n"
        "        yield from range(number)\n"
        "    server.on('each')(each)\n"
        "    with hisock.connect(server.addr) as client:\n"
        "        print(client.call('double', 4), client.call('count', 4))\n"
        "        print(list(client.stream('each', 3)))\n"
        "print('asyncio' in sys.modules)\n"
    ).splitlines() == ["8 5", "[0, 1, 2]", "False"]


def test_a_bare_import_brings_only_the_front_door() -> None:
    """``import hisock`` loads nothing that is not used yet."""
    new = modules_after("import hisock") - modules_after("pass")
    assert new - {"__future__"} == {"hisock", "hisock.constants"}


@pytest.mark.parametrize(
    ("statement", "limit"),
    [
        ("import hisock", 5),
        ("from hisock import connect", 40),
        ("from hisock import start_server", 60),
    ],
)
def test_import_is_quick(
    statement: str, limit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The door costs at most 5 ms, a client 40 ms, a server 60 ms over Python."""
    # As after an installation: compiled, whatever this process may do.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    code = (
        # The time of this process alone: others may be busy meanwhile.
        f"import time\nbegan = time.process_time()\n{statement}\n"
        "print((time.process_time() - began) * 1000)"
    )
    run(code)

    # The quickest of some: whatever else the machine does only adds to it.
    assert min(float(run(code)) for _ in range(9)) <= limit


def test_every_public_name_is_there() -> None:
    """Each name of the front door can be had, and a wrong one is an AttributeError."""
    assert run(
        "import hisock\n"
        "print(all(getattr(hisock, name) is not None for name in hisock.__all__))\n"
        "print(set(hisock.__all__) <= set(dir(hisock)))\n"
        "try: hisock.conect\n"
        "except AttributeError as error: print(error)"
    ).splitlines() == ["True", "True", "module 'hisock' has no attribute 'conect'"]


def test_t31_what_is_required_is_known() -> None:
    """An installation brings four packages and no more; all else is an extra, each
    with the lowest version that will do."""
    required: set[str] = set()
    extras: dict[str, set[str]] = {}
    for line in metadata.requires("hisock") or ():
        needed, _, condition = line.partition(";")
        name = re.split(r"[<>=!~\s]", needed.strip())[0]
        assert ">=" in needed or name == "kosoku", line  # whose cases are counted
        found = re.search(r"extra == ['\"](\w+)['\"]", condition)
        (extras.setdefault(found[1], set()) if found else required).add(name)

    assert required == {"msgspec", "websockets", "typer", "rich"}
    assert set(metadata.metadata("hisock").get_all("Provides-Extra", ())) == {
        "bench",
        "metrics",
        "tls",
        "test",
    }
    assert extras["tls"] == {"cryptography"}
    assert extras["metrics"] == {"prometheus-client"}
