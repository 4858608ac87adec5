"""A program of ours in a process of its own, as in a terminal: typed to, and read."""

from __future__ import annotations

__all__ = ("PATIENCE", "Terminal")

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

PATIENCE = 10.0


class Terminal:
    """One program in its own process, with its output collected as it comes.

    Args:
        command: What to run with Python: a file or ``-m`` and a module, and arguments.
    """

    def __init__(self, *command: str) -> None:
        self.program = " ".join(command)
        self._bytes = b""
        self._shown = ""
        self._read = 0  # how much of it an expect has consumed
        self._ended = False
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-X", "utf8", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        assert self._process.stdout is not None
        while piece := os.read(self._process.stdout.fileno(), 65536):
            with self._changed:
                self._bytes += piece  # which may end amid a character or a line end
                whole = self._bytes.removesuffix(b"\r").decode(errors="replace")
                self._shown = whole.replace("\r\n", "\n")
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def shown(self) -> str:
        """Everything that the terminal has shown so far."""
        with self._changed:
            return self._shown

    def expect(self, text: str) -> None:
        """Wait until `text` appears below what was expected before."""
        self.expect_match(re.escape(text))

    def expect_match(self, pattern: str) -> re.Match[str]:
        """As `expect`, for a regular expression; the match it found."""
        deadline = time.monotonic() + PATIENCE
        compiled = re.compile(pattern)
        with self._changed:
            while not (match := compiled.search(self._shown, self._read)):
                left = deadline - time.monotonic()
                if self._ended or left <= 0 or not self._changed.wait(left):
                    pytest.fail(f"{self.program}: no {pattern!r} in\n{self._shown}")
            self._read = match.end()
        return match

    def type(self, line: str) -> None:
        """Type one line, with Enter."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def end_input(self) -> None:
        """Press Ctrl-D (Ctrl-Z on Windows): the end of standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def interrupt(self) -> None:
        """Press Ctrl-C and wait for an orderly end, without a traceback."""
        if sys.platform == "win32":
            self._process.terminate()
            self._process.wait(PATIENCE)
        else:
            self._wait_until_it_waits()
            self._process.send_signal(signal.SIGINT)
            self.expect_end()

    def _wait_until_it_waits(self) -> None:
        """What it has shown may be said just before it gets to where it waits; a person
        is not that quick. Only Linux tells."""
        status = Path(f"/proc/{self._process.pid}/stat")
        deadline = time.monotonic() + PATIENCE
        while status.exists() and status.read_text().rpartition(") ")[2][0] != "S":
            assert time.monotonic() < deadline, f"{self.program} never waits"
            time.sleep(0.001)

    def expect_end(self) -> None:
        """Wait until the program has ended by itself, with exit code 0."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.program} did not end; it showed\n{self.shown}")
        self._reader.join(PATIENCE)
        assert code == 0, f"{self.program} ended with {code}:\n{self.shown}"
        assert "Traceback" not in self.shown

    def kill(self) -> None:
        """End the process whatever it does, and let go of its pipes."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        with contextlib.suppress(OSError):  # unsent input has no reader any more
            self.end_input()
        assert self._process.stdout is not None
        self._process.stdout.close()
