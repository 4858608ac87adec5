"""``hisock demo``, as a user runs it."""

from __future__ import annotations

import subprocess
import sys
import time

import hisock


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-X", "utf8", "-m", "hisock", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_demo_shows_every_step_and_ends_well() -> None:
    """Join, command, group, raw, call, stream, rename and leave are seen, in under 5 s,
    exit 0."""
    began = time.monotonic()
    result = run("demo")
    took = time.monotonic() - began

    assert (result.returncode, result.stderr) == (0, "")
    for seen in (
        "listens at 127.0.0.1:",
        "server  ann joined group red",
        "ann  got the command welcome with 'hello ann!'",
        "bob  hears ann say 'anyone up for a game?'",
        "cho  got 144",
        "cho  is told 3.0",
        "bob  reads [3, 2, 1]",
        "cho  reads 'the game begins'",
        "server  bob is now called rob",
        "rob  reads 'nice name'",
        "server  cho left; 2 still here",
        "ann  is told that cho left",
        "rob  is told that cho left",
    ):
        assert seen in result.stdout
    assert "cho  hears" not in result.stdout, "cho is in another group"
    assert took < 5


def test_version() -> None:
    """``--version`` tells the version of the library."""
    assert run("--version").stdout == f"hisock {hisock.__version__}\n"


def test_without_a_command_it_helps() -> None:
    """A bare ``hisock`` shows what it can do."""
    assert "demo" in run().stdout


def test_an_unknown_command_is_named() -> None:
    """A mistyped command is a usage error, not a traceback."""
    result = run("dmeo")
    assert result.returncode == 2
    assert "dmeo" in result.stderr
    assert "Traceback" not in result.stderr
