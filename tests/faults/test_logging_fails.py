"""Where the program's log cannot be written, nor its terminal, all else goes on."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hisock import connect
from hisock.engine.log import logger
from hisock.errors import RemoteError

from .raw import PATIENCE, Raw, Stage, eventually, needs_posix

pytestmark = pytest.mark.timeout(20)


class FullDisk(logging.Handler):
    """A log file on a disk that has no room left."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note what was to be written, and fail."""
        self.lines.append(record.getMessage())
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full_disk() -> Iterator[FullDisk]:
    """What hisock logs cannot be written, whatever its level."""
    handler, log = FullDisk(), logging.getLogger("hisock")
    level, log.propagate = log.level, False
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)
    log.propagate = True


def test_f52_a_log_that_cannot_be_written(full_disk: FullDisk) -> None:
    """Each line that fails costs itself alone: whoever it was about is served."""
    with Stage() as stage:
        stage.server.on("fail")(lambda client: 1 / 0)
        with connect(stage.address, "ann") as ann:
            ann.send("fail")
            with pytest.raises(RemoteError):
                ann.call("fail", timeout=PATIENCE)
            ann.send("nobody handles this")
            with Raw.call(stage.address) as stranger:
                stranger.throw(b"PUT / HTTP/1.1\r\n\r\n")
                assert stranger.take_all() == b""
            stage.check()
        eventually(lambda: stage.left == ["ann"], "ann leaves")
    told = " ".join(full_disk.lines)
    for what in ("joined", "handler", "nobody handles this", "! ", "left", "closed"):
        assert what in told


def test_a_line_says_where_it_is_from(full_disk: FullDisk) -> None:
    """A log shows the line that says it; a wrong one of ours is found in tests."""
    places: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        places.append(record.funcName or "")
        return True

    full_disk.addFilter(note)
    log = logger("hisock.server")
    log.warning("it is %s", "so")
    assert places == ["test_a_line_says_where_it_is_from"]
    with pytest.raises(TypeError):
        log.warning("it is %s", "so", "and so")


#: Answers one call, reports two mistakes, and writes what came of it to a file.
_PROGRAM = """
import json, os, sys
{silence}
import hisock
server = hisock.start_threaded_server(("127.0.0.1", 0))
server.on("fail")(lambda client: 1 / 0)
server.on("echo")(lambda client, number: number)
with server, hisock.connect(server.addr, "ann") as ann:
    ann.send("fail")
    ann.send("nobody")
    answer = ann.call("echo", 7, timeout=5)
with open(sys.argv[1], "w") as file:
    json.dump([answer, len(server)], file)
"""

_SILENCES = {
    "closed descriptors": "for each in range(3): os.close(each)",
    "no streams": "sys.stdin = sys.stdout = sys.stderr = None",
    "closed streams": "sys.stdout.close(); sys.stderr.close()",
    "a broken pipe": "",
}


@needs_posix
@pytest.mark.parametrize("how", list(_SILENCES))
def test_f53_a_program_without_a_terminal(how: str, tmp_path: Path) -> None:
    """A daemon's server works, though its reports have nowhere to go."""
    result = tmp_path / "result.json"
    program = _PROGRAM.replace("{silence}", _SILENCES[how])
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(result)],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            timeout=4 * PATIENCE,
            check=False,
        )
    finally:
        os.close(writing)
    assert json.loads(result.read_text()) == [7, 0]
    # Python itself complains at its exit that it cannot flush what it has open.
    assert done.returncode in {0, 120}
