"""Type checkers read the public API as ``tests/typing/api.py`` says it is meant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
API = ROOT / "tests" / "typing" / "api.py"
#: Has pyright, too, find every ``type: ignore`` that hides nothing.
STRICT = (
    "# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, "
    "reportPrivateUsage=false, reportUnusedFunction=false, "
    "reportUnusedCoroutine=false, "
    "reportUnknownVariableType=false, reportUnknownMemberType=false\n"
)

pytestmark = pytest.mark.timeout(120)


def check(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a type checker; what it said is in the failure."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def missing(tool: str, reason: str) -> None:
    """Skip where a tool cannot run; but in CI it has to."""
    if os.environ.get("CI"):
        pytest.fail(f"{tool} does not run here: {reason}", pytrace=False)
    pytest.skip(f"{tool} does not run here: {reason}")


def test_mypy_reads_the_api_as_it_is_meant() -> None:
    """Decorated functions keep their type, ``type=`` is the type of an answer, and
    every mistake in the file is found."""
    pytest.importorskip("mypy")

    done = check("mypy", "--warn-unused-ignores", str(API))

    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_reads_the_api_as_it_is_meant(tmp_path: Path) -> None:
    """The same for the checker that editors use."""
    ready = check("pyright", "--version")
    if ready.returncode or not ready.stdout.startswith("pyright "):
        missing("pyright", (ready.stdout + ready.stderr).strip()[-200:])
    strict = tmp_path / "api.py"
    strict.write_text(STRICT + API.read_text(encoding="utf-8"), encoding="utf-8")

    done = check("pyright", "--pythonpath", sys.executable, str(strict))

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mistake_is_found(tmp_path: Path) -> None:
    """The checkers see the types of this library, not just anything."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from hisock import connect\n"
        "answer: str = connect(('', 0)).call('add', type=int)\n",
        encoding="utf-8",
    )

    done = check("mypy", "--strict", str(wrong))

    assert done.returncode == 1
    assert 'expression has type "int", variable has type "str"' in done.stdout
