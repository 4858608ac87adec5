"""``hisock serve``, as a user runs it."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

from hisock import HiSockClient, connect

needs_sigint = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles only"
)


class Running:
    """The command in a process of its own.

    Attributes:
        lines: What it has printed so far, without what is in front.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self._out: IO[str] = process.stdout
        self.lines: list[str] = []

    def expect(self, pattern: str) -> str:
        """Read on until a line is like that; its first group."""
        for line in self._out:
            self.lines.append(line.strip())
            if found := re.fullmatch(pattern, line.strip()):
                return found[1] if found.re.groups else found[0]
        pytest.fail(f"no {pattern!r} in {self.lines}")

    def end(self) -> tuple[int, str]:
        """Press Ctrl-C; the exit code, and the last line."""
        self._process.send_signal(signal.SIGINT)
        rest = self._out.read().splitlines()
        return self._process.wait(timeout=20), rest[-1]


@contextmanager
def serving(*arguments: str) -> Iterator[Running]:
    """Run it at a free port."""
    command = [sys.executable, "-X", "utf8", "-m", "hisock", "serve", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


@needs_sigint
def test_commands_reach_the_others_in_the_room() -> None:
    """A group is a room, and so are all without one; content keeps its type, the sender
    hears nothing, a call is answered with ``None``. Ctrl-C ends it well."""
    with serving() as running, ExitStack() as stack:
        place = running.expect(r"clients  (\S+)")

        def join(name: str | None, group: str | None) -> HiSockClient:
            client = connect(place, name=name, group=group, reconnect=False)
            stack.enter_context(client)
            room = f", in {group}" if group else ""
            running.expect(f"joined  {name or 'somebody without a name'}{room}")
            return client

        ann, ben = join("ann", "red"), join("ben", "red")
        cho, dan = join("cho", None), join(None, None)
        ann.send("move", {"x": 4})
        assert ann.call("turn", [1, 2.5]) is None
        assert cho.call("shout", "hey") is None

        assert ben.recv("move", timeout=5) == {"x": 4}
        assert ben.recv("turn", timeout=5) == [1, 2.5]
        assert dan.recv("shout", timeout=5) == "hey"
        cho.close()
        running.expect("left  cho")
        # Nothing else came: what is sent now is the next each of them hears.
        ben.send("last", 1)
        dan.send("last", 2)
        assert ann.recv_any(timeout=5).command == "last"
        assert running.end() == (0, "closed")


@needs_sigint
def test_pages_and_the_dashboard_are_served(tmp_path: Path) -> None:
    """Each where it says."""
    (tmp_path / "index.html").write_text("<p>here</p>")
    with serving("--pages", str(tmp_path), "--dashboard") as running:
        place = running.expect(r"pages  http://(\S+)/")
        link = running.expect(r"dashboard  http://(\S+)")
        assert link.startswith(f"{place}/dashboard#token=")

        asking = http.client.HTTPConnection(place, timeout=5)
        for path, part in (("/", b"here"), ("/dashboard", b"hisock dashboard")):
            asking.request("GET", path)
            assert part in asking.getresponse().read()
            asking.close()
        assert running.end() == (0, "closed")


@needs_sigint
def test_names_do_not_play_with_the_terminal() -> None:
    """Markup of the terminal's library is text, and what cannot be seen is spelled."""
    with serving() as running:
        place = running.expect(r"clients  (\S+)")
        for name, seen in (("[red]ann[/]", "[red]ann[/]"), ("\u202eb", r"'\u202eb'")):
            with connect(place, name=name, reconnect=False):
                running.expect(re.escape(f"joined  {seen}"))
            running.expect(re.escape(f"left  {seen}"))
        assert running.end() == (0, "closed")


def test_a_wrong_address_is_said_in_a_line() -> None:
    """With what would be right, and no traceback."""
    result = subprocess.run(
        [sys.executable, "-m", "hisock", "serve", "nowhere"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("hisock serve: 'nowhere' has no port")
    assert result.stderr.count("\n") == 1
