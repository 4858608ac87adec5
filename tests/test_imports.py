"""What an import costs and what it must not bring along, in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
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


@pytest.mark.parametrize(
    "statement",
    [
        "import hisock",
        "from hisock import connect",
        "from hisock import start_server",
        "from hisock import utils",
    ],
)
def test_the_library_brings_nothing_third_party(statement: str) -> None:
    """Whatever is imported of it, all else comes from the standard library."""
    bare = modules_after("pass")
    for name in modules_after(statement) - bare:
        root = name.split(".")[0]
        assert root == "hisock" or root in sys.stdlib_module_names, name


@pytest.mark.parametrize("name", ["connect", "start_server", "threaded_connect"])
def test_no_face_of_this_version_brings_asyncio(name: str) -> None:
    """The blocking client, and the server turned by hand, need no asyncio."""
    assert "asyncio" not in modules_after(f"from hisock import {name}")


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
        f"import time\nbegan = time.perf_counter()\n{statement}\n"
        "print((time.perf_counter() - began) * 1000)"
    )
    run(code)

    # The quickest of some: whatever else the machine does only adds to it.
    assert min(float(run(code)) for _ in range(5)) <= limit


def test_every_public_name_is_there() -> None:
    """Each name of the front door can be had, and a wrong one is an AttributeError."""
    assert run(
        "import hisock\n"
        "print(all(getattr(hisock, name) is not None for name in hisock.__all__))\n"
        "print(set(hisock.__all__) <= set(dir(hisock)))\n"
        "try: hisock.conect\n"
        "except AttributeError as error: print(error)"
    ).splitlines() == ["True", "True", "module 'hisock' has no attribute 'conect'"]
