"""``hisock demo``, as a user runs it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.request

from tests.terminal import Terminal

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
        "has a whiteboard for browsers at http://127.0.0.1:",
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
        "hisock demo --serve keeps it open",
    ):
        assert seen in result.stdout
    assert "cho  hears" not in result.stdout, "cho is in another group"
    assert took < 5


def get(address: str, path: str) -> str:
    """What a server answers to a browser's request."""
    with urllib.request.urlopen(f"{address}{path}", timeout=10) as answer:
        body: bytes = answer.read()
    return body.decode()


def serve(*arguments: str) -> tuple[Terminal, str]:
    """Run ``hisock demo --serve``; where its page is."""
    terminal = Terminal("-m", "hisock", "demo", "--serve", *arguments)
    found = terminal.expect_match(r"open (http://[\d.]+:\d+)/ in two windows")
    return terminal, found[1]


def test_demo_goes_on_serving() -> None:
    """With ``--serve`` the page and all its files stay until Ctrl-C."""
    terminal, address = serve()
    try:
        page = get(address, "/")
        assert "<title>Whiteboard</title>" in page
        for name in re.findall(r'(?:src|href)="([\w.]+)"', page):
            assert get(address, f"/{name}")
        terminal.expect("for phones in your network: --host 0.0.0.0")
        if sys.platform != "win32":
            terminal.interrupt()
            assert "closes" in terminal.shown
    finally:
        terminal.kill()


def test_demo_lets_the_network_in_when_asked() -> None:
    """``--host 0.0.0.0`` says what to type on a phone."""
    terminal, address = serve("--host", "0.0.0.0")
    try:
        port = address.rpartition(":")[2]
        terminal.expect_match(rf"on a phone in your network http://[\d.]+:{port}/")
        assert address == f"http://127.0.0.1:{port}"
    finally:
        terminal.kill()


def test_demo_names_a_port_that_is_taken() -> None:
    """A port that another program has is a usage error, not a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("demo", "--port", str(taken.getsockname()[1]))

    assert result.returncode == 2
    assert "cannot listen at" in result.stderr
    assert "Traceback" not in result.stderr


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
