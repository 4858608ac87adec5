"""Every program and every example of bytes in the documents is true.

How a document says what its blocks are:

- A comment on the line above a ``python`` block says how it runs: ``<!-- run -->`` by
  itself, ``<!-- run: server -->`` together with the next python block, which then is
  its ``<!-- run: client -->``; ``<!-- run: with its page -->`` with the ``html`` block
  below it, which ``tests/browser`` opens. The port 6969 is replaced by a free one. A
  block without a comment is a mistake.
- A ``text`` block that is the next one below such a program, in the same section, is
  what it prints: each line has to appear. Any other ``text`` block is a drawing.
- A ``wire`` block (``docs/wire.md``) is a conversation with the server above it. A
  comment such as ``# [33, 1]`` says what the compact frame below it means.
"""

from __future__ import annotations

import ast
import json
import os
import re
import select
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, get_args
from urllib.request import urlopen

import pytest
from msgspec.structs import replace

import hisock.errors
from hisock import HiSockClient, HiSockServer
from hisock.engine.delivery import WHEN_SLOW
from hisock.errors import (
    ClientDisconnected,
    HiSockError,
    NotSendable,
    RemoteProtocolError,
    SessionLost,
)
from hisock.handlers.cast import cast_for, unpack
from hisock.types import Limits
from hisock.wire import compact
from hisock.wire.classic import (
    Decoder,
    HelloReader,
    decode_answer,
    decode_control,
    encode_frame,
    header,
)
from hisock.wire.frames import (
    BYE_WORDS,
    PROTO,
    Bye,
    ClientFrame,
    Frame,
    Hello,
    Message,
    PackedFrame,
    Refusal,
    Welcome,
)
from hisock.wire.text import to_text

ROOT = Path(__file__).resolve().parent.parent
WIRE = ROOT / "docs" / "wire.md"
PROMISES = ROOT / "docs" / "promises.md"
DOCUMENTS = [
    *(path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()),
    *sorted((ROOT / "docs").rglob("*.md")),
]
HOST = "127.0.0.1"
PATIENCE = 10.0
HEADER_LEN = 16


# ── reading a document ──────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block, with the comment above it and the section it stands in."""

    path: Path
    line: int
    language: str
    text: str
    marker: str | None
    section: int

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}"


_FENCE = re.compile(r"\s*(`{3,}|~{3,})\s*([\w+-]*)")
_MARKER = re.compile(r"\s*<!--\s*(run\b.*?)\s*-->\s*")
_PYTHON = {"python", "py", "python3"}


def read_blocks(path: Path) -> list[Block]:
    """Every fenced block of a document."""
    blocks: list[Block] = []
    marker: str | None = None
    section = 0
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    for number, line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            section += line.startswith("#")
            comment = _MARKER.fullmatch(line)
            if comment is not None or line.strip():
                marker = comment[1] if comment else None
            continue
        inside: list[str] = []
        for _, each in lines:
            if each.strip() == fence[1]:
                break
            inside.append(each)
        else:
            raise AssertionError(f"{path.name}:{number}: the block never ends")
        text = textwrap.dedent("\n".join(inside)) + "\n"
        blocks.append(Block(path, number, fence[2], text, marker, section))
        marker = None
    return blocks


BLOCKS = [block for path in DOCUMENTS for block in read_blocks(path)]
PROGRAMS = [block for block in BLOCKS if block.language in _PYTHON]


def printed(program: Block) -> list[str]:
    """The lines that a document says a program prints."""
    following = BLOCKS[BLOCKS.index(program) + 1 :][:1]
    for block in following:
        same = (block.path, block.section) == (program.path, program.section)
        if same and block.language == "text":
            return [line.strip() for line in block.text.splitlines() if line.strip()]
    return []


def page_of(program: Block) -> str:
    """The page that stands below a program which serves it."""
    page = BLOCKS[BLOCKS.index(program) + 1]
    assert (page.language, page.section) == ("html", program.section), program
    return page.text


def partner(program: Block, offset: int) -> Block | None:
    """The python block before or after one, in the same document."""
    index = PROGRAMS.index(program) + offset
    if not 0 <= index < len(PROGRAMS) or PROGRAMS[index].path != program.path:
        return None
    return PROGRAMS[index]


#: A cell of a table, by the title of its column.
Row: TypeAlias = dict[str, str]


def prose(path: Path) -> Iterator[str]:
    """The lines of a document outside its blocks."""
    fence = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        found = _FENCE.match(line)
        if found is None:
            if not fence:
                yield line
        elif not fence:
            fence = found[1]
        elif line.strip() == fence:
            fence = ""


def read_tables(path: Path) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """Every table of a document: its titles and its rows."""
    rows: list[tuple[str, ...]] = []
    for line in [*prose(path), ""]:
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            rows.append(tuple(cell.strip() for cell in cells))
        elif rows:
            titles, _, *others = rows
            yield titles, [dict(zip(titles, row, strict=True)) for row in others]
            rows = []


def code(cell: str) -> str:
    """What stands between the backticks of a cell."""
    assert cell[:1] == cell[-1:] == "`", f"no code: {cell}"
    return cell[1:-1]


def to_bytes(text: str) -> bytes:
    r"""An example as the bytes it means: ``·`` is padding, ``\xNN`` is one byte."""
    data = text.replace("·", " ").encode("ascii")
    return re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), data)


def to_value(text: str) -> Any:
    """A value as the document writes it: in Python, with the constants of JSON."""
    names = {"null": None, "true": True, "false": False}
    return eval(text, {**names, "datetime": datetime, "UTC": UTC})


def framed(body: bytes, header_len: int = HEADER_LEN) -> bytes:
    """A body behind its header."""
    return header(len(body), header_len) + body


def packed(value: Any) -> bytes:
    """A compact frame."""
    body = compact.pack(value)
    return compact.header(len(body)) + body


# ── running a document's programs ───────────────────────────────────────────────────

_LISTENING = "<listening>"
#: Runs a program, and tells when its server can be reached.
_BOOT = f"""
import runpy, socket, sys
listen = socket.socket.listen
def tell(sock, *args):
    listen(sock, *args)
    print({_LISTENING!r}, flush=True)
socket.socket.listen = tell
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Stage:
    """The processes of one test, and all that they print."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = threading.Condition()
        self._cast: list[Process] = []

    def add_page(self, text: str) -> None:
        """Have a page in the folder that programs serve as ``pages``."""
        pages = self._folder / "pages"
        pages.mkdir()
        (pages / "index.html").write_text(text, encoding="utf-8")

    def run(self, block: Block, port: int) -> Process:
        """Start a program with this port in the place of 6969."""
        file = self._folder / f"line_{block.line}.py"
        file.write_text(block.text.replace("6969", str(port)), encoding="utf-8")
        process = Process(file, self._changed)
        self._cast.append(process)
        return process

    def wait_until(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something is true of what the processes have printed."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while not true():
                left = deadline - time.monotonic()
                if left <= 0 or all(process.ended for process in self._cast):
                    shown = "\n".join(f"{p}:\n{p.shown}" for p in self._cast)
                    pytest.fail(f"{what} did not happen; shown was\n{shown}")
                self._changed.wait(left)

    def end(self) -> None:
        """End all of them, whatever they do."""
        for process in self._cast:
            process.kill()


class Process:
    """A program in a process of its own, with its output collected as it comes."""

    def __init__(self, file: Path, changed: threading.Condition) -> None:
        self._file = file
        self._changed = changed
        self.shown = ""
        self.ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-X", "utf8", "-c", _BOOT, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=file.parent,
            env={**os.environ, "HISOCK_HOME": str(file.parent)},  # certificates, pins
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def __str__(self) -> str:
        return self._file.name

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.shown += line
                self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def check_end(self) -> None:
        """Fail if the program, which has closed its output, did not end well."""
        assert self._process.wait(PATIENCE) == 0, f"{self}:\n{self.shown}"

    def kill(self) -> None:
        """End the process, and let go of its pipe."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Where programs run; at the end all of them are over."""
    stage = Stage(tmp_path)
    yield stage
    stage.end()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server((HOST, 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def serve(stage: Stage, block: Block) -> tuple[Process, int]:
    """Run a server and wait until it can be reached."""
    port = free_port()
    server = stage.run(block, port)
    stage.wait_until(lambda: _LISTENING in server.shown, f"listening of {block}")
    return server, port


def serve_with_page(stage: Stage, block: Block) -> int:
    """Run a server with the page that stands below it; its port."""
    stage.add_page(page_of(block))
    return serve(stage, block)[1]


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_program_runs(stage: Stage, block: Block) -> None:
    """Whatever Python a document shows runs, and prints what stands below it.

    A server and its client run together until all the lines have appeared, and until
    the client has ended unless it has a loop without an end.
    """
    match block.marker:
        case "run":
            program = stage.run(block, free_port())
            stage.wait_until(lambda: program.ended, f"the end of {block}")
            check_printed(printed(block), [program])
            program.check_end()
        case "run: with its page":
            port = serve_with_page(stage, block)
            with urlopen(f"http://{HOST}:{port}/", timeout=PATIENCE) as answer:
                assert answer.read().decode() == page_of(block)
        case "run: server":
            client = partner(block, +1)
            if client is None or client.marker != "run: client":
                pytest.fail(f"{block}: the next python block is not its client")
            run_pair(stage, block, client)
        case "run: client":
            server = partner(block, -1)
            if server is None or server.marker != "run: server":
                pytest.fail(f"{block}: the python block before is not its server")
        case marker:
            pytest.fail(f"{block}: how does it run? <!-- {marker or 'nothing'} -->")


def run_pair(stage: Stage, server_block: Block, client_block: Block) -> None:
    """Run a server and its client until all the lines have appeared."""
    server, port = serve(stage, server_block)
    client = stage.run(client_block, port)
    pair = [server, client]
    ends = "while True" not in client_block.text
    lines = [
        line.replace("6969", str(port))
        for line in printed(server_block) + printed(client_block)
    ]
    stage.wait_until(
        lambda: not missing(lines, pair) and (client.ended or not ends),
        f"{lines} of {server_block}, or the end of its client",
    )
    check_printed(lines, pair)
    if ends:
        client.check_end()


def missing(lines: list[str], processes: list[Process]) -> list[str]:
    """The lines that none of the programs has printed as a whole."""
    shown = {
        line.strip() for process in processes for line in process.shown.splitlines()
    }
    return [line for line in lines if line not in shown]


def check_printed(lines: list[str], processes: list[Process]) -> None:
    """Fail if a line is missing, or a program failed."""
    shown = "\n".join(f"{process}:\n{process.shown}" for process in processes)
    assert not missing(lines, processes), shown
    assert "Traceback" not in shown, shown


def wire_programs(marker: str) -> list[Block]:
    """The servers or the clients of docs/wire.md: the classic one, the compact one."""
    return [b for b in PROGRAMS if b.path == WIRE and b.marker == marker]


def server_above(block: Block) -> Block:
    """The server that a conversation is held with."""
    servers = wire_programs("run: server")
    return [server for server in servers if server.line < block.line][-1]


def test_whole_compact_client_is_the_tested_one() -> None:
    """The document shows the very file that test_other_language.py runs."""
    _, block = wire_programs("run: client")
    file = ROOT / "tests" / "other_language.py"
    assert block.text == file.read_text(encoding="utf-8")


def test_whole_classic_client_is_small_and_plain() -> None:
    """A client fits into 40 lines of Python that import nothing of ours."""
    text = wire_programs("run: client")[0].text
    imported: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")

    assert len([line for line in text.splitlines() if line.strip()]) <= 40
    assert imported <= {"json", "socket"}


# ── the conversations of docs/wire.md ───────────────────────────────────────────────

_PORTS = {"ann": 50001, "ben": 50002}
_STEP = re.compile(r"(ann|ben) ([<>]) (.+)")
#: What a server draws anew each time.
_CLOCK = re.compile(rb'"now": \d+')
_EPOCH = re.compile(rb'(?<="epoch": ")[0-9a-f-]+')


class Voices:
    """The clients of a conversation, as bare sockets."""

    def __init__(self, stack: ExitStack, port: int) -> None:
        self._stack = stack
        self._port = port
        self._socks: dict[str, socket.socket] = {}
        #: What the document writes → what it is this time.
        self._own: dict[bytes, bytes] = {}
        self._ended: dict[str, set[str]] = {}

    def sock(self, who: str) -> socket.socket:
        """The socket of a client, connected when it is first needed."""
        if who not in self._socks:
            sock = socket.create_connection((HOST, self._port), PATIENCE)
            self._socks[who] = self._stack.enter_context(sock)
            shown, own = _PORTS[who], sock.getsockname()[1]
            assert own > 9999, "the lengths in the document count five digits"
            self._own[b"%d" % shown] = b"%d" % own
            self._own[compact.pack(shown)] = compact.pack(own)
        return self._socks[who]

    def play(self, who: str, direction: str, what: str) -> None:
        """Write what the document writes, or read what it reads."""
        sock = self.sock(who)
        ends = what == "(end)"
        if direction == "<":
            data = b"" if ends else self._fill(to_bytes(what))
            if b"$WELCOME$" in data:  # its clock differs each time, so maybe its length
                head = self._read(sock, HEADER_LEN)
                body = self._read(sock, int(head))
                shown = _EPOCH.search(data)
                if shown is not None:
                    self._own[shown[0]] = _EPOCH.findall(body)[0]
                    data = self._fill(data)
                    assert len(self._own[shown[0]]) == len(shown[0])
                assert _CLOCK.sub(b"", body) == _CLOCK.sub(b"", one_body(data))
            else:
                assert self._read(sock, max(1, len(data))) == data
        elif ends:
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.sendall(self._fill(to_bytes(what)))
        if ends:
            self._end(who, direction)

    def _end(self, who: str, direction: str) -> None:
        """After both directions have ended the next line is of a new connection."""
        ended = self._ended.setdefault(who, set())
        ended.add(direction)
        if len(ended) == len("<>"):
            del self._socks[who], self._ended[who]

    def _fill(self, data: bytes) -> bytes:
        for written, own in self._own.items():
            data = data.replace(written, own)
        return data

    @staticmethod
    def _read(sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := sock.recv(size - len(data))):
            data += piece
        return data


CONVERSATIONS = [block for block in BLOCKS if block.language == "wire"]


@pytest.mark.parametrize("block", CONVERSATIONS, ids=str)
def test_conversation_happens(stage: Stage, block: Block) -> None:
    """Our server says what the conversation says it does, byte for byte."""
    _, port = serve(stage, server_above(block))

    with ExitStack() as stack:
        voices = Voices(stack, port)
        for line in block.text.splitlines():
            if line and not line.startswith("#"):
                step = _STEP.fullmatch(line)
                assert step is not None, line
                voices.play(step[1], step[2], step[3])


class Reading:
    """One direction of a conversation, as a peer of ours reads it."""

    def __init__(self, header_len: int, *, by_client: bool) -> None:
        self.is_compact = False
        self._by_client = by_client
        self._header_len = header_len
        self._decoder = Decoder(header_len, 0, bare_tokens=by_client)
        self._compact = compact.Decoder(0)

    def check(self, data: bytes, meaning: str) -> None:
        """These bytes are whole frames, and mean what is said of them."""
        if self.is_compact:
            assert data == packed(to_value(meaning))
            compact.decode(one_frame(data))
            return
        bodies: list[bytes] = []
        self._decoder.feed(data, bodies)
        written = b"".join(framed(body, self._header_len) for body in bodies)
        bare = data.startswith((b"$CHNAME$", b"$CHGROUP$"))
        assert bodies
        assert bare or written == data
        mark = b"$COMPACT$" if self._by_client else b"$WELCOME$"
        self.is_compact = bodies[0].startswith(mark)


@pytest.mark.parametrize("block", CONVERSATIONS, ids=str)
def test_conversation_is_read_by_our_decoders(block: Block) -> None:
    """Every line is whole frames, except for the one that shows how to break a rule."""
    readings: dict[tuple[str, str], Reading] = {}
    header_lens: dict[str, int] = {}
    meaning = ""
    for line in block.text.splitlines():
        step = _STEP.fullmatch(line)
        if step is None or step[3] == "(end)":
            meaning = line.removeprefix("# ")
            continue
        who, direction, data = step[1], step[2], to_bytes(step[3])
        if b"$CLTHELLO$" in data:
            header_lens[who] = data.index(b"$")
            for each in "<>":  # of a connection before this one
                readings.pop((who, each), None)
        reading = readings.setdefault(
            (who, direction), Reading(header_lens[who], by_client=direction == ">")
        )
        if data.startswith(b"0") and data[1:2].isdigit():
            with pytest.raises(RemoteProtocolError):
                reading.check(data, meaning)
        else:
            reading.check(data, meaning)


# ── the drawings and tables of docs/wire.md ─────────────────────────────────────────

_TABLES = dict(read_tables(WIRE))
_HEADERS = ("Header", "Reads as")
_CALLS = ("Call", "On the wire")
_RESERVED = ("From", "Body", "Meaning", "Example")
_BROKEN = ("Broken body", "What the server logs")
_ANSWERS = ("Answer", "Read as")
_ACCEPTED = ("Accepted hello", "Header length", "Name", "Group")
_REFUSED = ("Refused hello", "What the server logs")
_LIMITS = ("Limit", "Default", "Beyond it")
_CODES = ("Code", "Why", "Example")
_LENGTHS = ("Length", "Reads as")
_KINDS = ("Kind", "Name", "Elements after the kind", "From", "Acts", "Example", "Bytes")
_COMPACT_CALLS = ("Call", "Frame", "On the compact wire")
_FAILURES = ("Failure", "When", "Example")
_VALUES = ("Value", "Written as")
_HINTS = ("Content", "Hint", "The handler gets")
_TEXT_MODE = ("In content", "In JSON")
_BYES = ("Bye", "When", "Example")
_BROKEN_FRAMES = ("Broken frame", "Code", "What the Bye says")
_SESSION_FIELDS = ("Field", "From", "What it is")
_FIRST_KINDS = ("Kind", "Name", "Elements after the kind", "From", "Example", "Bytes")
_PROSE = {("What 1.1 does", "What we do"), ("Answer to the hello", "What it means")}


def examples(titles: tuple[str, ...]) -> list[Any]:
    """The rows of a table, each a case of its own."""
    return [
        pytest.param(*row.values(), id=row[titles[0]].strip("`").replace("·", ""))
        for row in _TABLES[titles]
    ]


def one_body(data: bytes) -> bytes:
    """The body of the one frame that these bytes are."""
    bodies: list[bytes] = []
    Decoder(HEADER_LEN, 0).feed(data, bodies)
    [body] = bodies
    assert framed(body) == data
    return body


def one_frame(data: bytes) -> bytes:
    """The one compact frame that these bytes are, without its length."""
    frames: list[bytes] = []
    at_once: list[bytes] = []
    compact.Decoder(0).feed(data, frames, at_once)
    frames = frames or at_once  # a request goes into both
    [frame] = frames
    assert compact.header(len(frame)) + frame == data
    return frame


def test_every_table_is_checked() -> None:
    """A new table in the document needs a test here, unless it is prose."""
    classic = {_HEADERS, _CALLS, _RESERVED, _BROKEN, _ANSWERS, _ACCEPTED, _REFUSED}
    ours = {_CODES, _LENGTHS, _KINDS, _COMPACT_CALLS, _FAILURES, _VALUES, _HINTS}
    ours |= {_BYES, _BROKEN_FRAMES, _SESSION_FIELDS, _FIRST_KINDS, _TEXT_MODE}
    assert set(_TABLES) == classic | ours | _PROSE | {_LIMITS}
    for titles in _PROSE:
        assert not any("·" in cell for row in _TABLES[titles] for cell in row.values())


def test_drawn_frames_have_the_right_header() -> None:
    """The header in a drawing is the length of the body beside it."""
    drawn = [
        match
        for block in BLOCKS
        if block.path == WIRE and block.language == "text"
        for match in re.finditer(r"^\|(\d+·+)\|(.*)\|$", block.text, re.MULTILINE)
    ]

    assert drawn
    for head, body in (match.groups() for match in drawn):
        assert to_bytes(head) == header(len(to_bytes(body)), len(head))


def test_drawn_compact_frames_have_the_right_length() -> None:
    """The length in a drawing is that of the body beside it, and both are a frame."""
    drawn = [
        match[1] + match[2]
        for block in BLOCKS
        if block.path == WIRE and block.language == "text"
        for match in re.finditer(
            r"^\|((?:\\x[0-9a-f]{2}){4})\|(.*)\|$", block.text, re.MULTILINE
        )
    ]

    assert drawn
    for frame in drawn:
        compact.decode(one_frame(to_bytes(frame)))


def test_frames_in_the_text_are_frames() -> None:
    """A frame quoted in a sentence is whole."""
    text = "\n".join(line for line in prose(WIRE) if not line.startswith("|"))
    classic = re.findall(r"`(\d+·[^`\n]*)`", text)
    ours = re.findall(r"`(\\x00[^`\n]*)`", text)

    assert classic
    assert ours
    for example in classic:
        assert one_body(to_bytes(example))
    for example in ours:
        assert compact.decode(one_frame(to_bytes(example)))


def test_frames_may_be_written_in_other_ways() -> None:
    """The text's two ways of saying the same are read as the same."""
    text = " ".join(line for line in prose(WIRE) if not line.startswith("|"))
    both = re.search(r"will do: `(.*?)` and `(.*?)` both say `(.*?)`", text)

    assert both is not None
    first, second = (compact.decode(one_frame(to_bytes(both[n]))) for n in (1, 2))
    assert first == second == compact.decode(compact.pack(to_value(both[3])))


@pytest.mark.parametrize(("example", "reading"), examples(_HEADERS))
def test_header_is_read(example: str, reading: str) -> None:
    """A header is read as the document says, or refused before a byte of body came."""
    head = to_bytes(code(example))
    bodies: list[bytes] = []
    decoder = Decoder(len(head), 0)
    if reading == "refused":
        with pytest.raises(RemoteProtocolError):
            decoder.feed(head, bodies)
    else:
        size = int(reading)
        assert header(size, len(head)) == head
        decoder.feed(head + b"x" * size, bodies)
        assert bodies == [b"x" * size]


def written_by(side: str) -> list[tuple[str, bytes]]:
    """The calls of one side, and what they write."""
    pairs = [(code(row["Call"]), code(row["On the wire"])) for row in _TABLES[_CALLS]]
    assert all(call.startswith(("client.", "server.")) for call, _ in pairs)
    return [(call, to_bytes(wire)) for call, wire in pairs if call.startswith(side)]


def read_classic(stream: BinaryIO) -> bytes:
    """The body of the next classic frame."""
    return stream.read(int(stream.read(HEADER_LEN)))


@contextmanager
def client_with(
    answer: bytes,
) -> Iterator[tuple[HiSockClient, BinaryIO, socket.socket]]:
    """A client whose hello gets this answer, what it writes after it, and the peer."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(PATIENCE)
        client = HiSockClient(
            listener.getsockname(), header_len=HEADER_LEN, reconnect=False
        )
        sock, _ = listener.accept()
        sock.settimeout(PATIENCE)
        with sock, sock.makefile("rb") as stream:
            complete = HelloReader(0, 0).feed(framed(read_classic(stream)))
            assert complete is not None
            assert complete[0] == Hello(None, None, PROTO, complete[0].now)
            assert read_classic(stream) == b"$DH_NUMS$"
            sock.sendall(framed(answer))
            yield client, stream, sock
            sock.shutdown(socket.SHUT_WR)
            client.close()


def test_client_writes_what_the_table_says() -> None:
    """Each call on a client writes these bytes and no others."""
    with client_with(b"$NOTLS$") as (client, stream, _):
        for call, expected in written_by("client"):
            eval(call, {"client": client})
            assert stream.read(len(expected)) == expected, call
        client.close()
        assert stream.read() == framed(b"$USRCLOSE$")


@pytest.fixture
def server() -> Iterator[HiSockServer]:
    """A server of ours that a test turns by hand: once for a join, once for a leave."""
    server = HiSockServer((HOST, 0))
    server.on("join")(lambda client: None)
    server.on("leave")(lambda client: None)
    yield server
    server.close()


@pytest.fixture
def ann(server: HiSockServer) -> Iterator[socket.socket]:
    """The bare socket of a client called ann, which has joined."""
    with socket.create_connection(server.addr, PATIENCE) as sock:
        sock.sendall(framed(encode_frame(Hello("ann", None))))
        server.run()
        yield sock


def test_server_writes_what_the_table_says(
    server: HiSockServer, ann: socket.socket
) -> None:
    """Each call on a server writes these bytes and no others."""
    with ann.makefile("rb") as stream:
        for call, expected in written_by("server"):
            eval(call, {"server": server})
            assert stream.read(len(expected)) == expected, call
        ann.shutdown(socket.SHUT_WR)
        server.run()
        assert stream.read() == b""


def read_frame(body: bytes, *, by_client: bool) -> Frame:
    """What a peer of ours makes of a reserved body."""
    if by_client and body.startswith(b"$CLTHELLO$"):
        complete = HelloReader(0, 0).feed(framed(body))
        assert complete is not None
        return complete[0]
    frame = decode_control(body, by_client=by_client)
    if frame is None and not by_client:
        frame = decode_answer(body)
    assert frame is not None, body
    return frame


def test_reserved_bodies_are_complete_and_right() -> None:
    """Each example is read as a frame that is written so, and no frame is missing."""
    seen: set[tuple[type[Frame], str]] = set()
    for row in _TABLES[_RESERVED]:
        data = to_bytes(code(row["Example"]))
        body = one_body(data)
        frame = read_frame(body, by_client=row["From"] == "client")
        assert body.startswith(code(row["Body"]).split(" ")[0].encode())
        by_client = row["From"] == "client"
        assert framed(encode_frame(frame, by_client=by_client)) == data
        seen.add((type(frame), row["From"]))

    assert {kind for kind, _ in seen} == set(get_args(Frame))
    assert {side for kind, side in seen if kind is Bye} == {"client", "server"}


@pytest.mark.parametrize(("example", "reason"), examples(_BROKEN))
def test_broken_body_ends_the_connection(
    server: HiSockServer,
    ann: socket.socket,
    caplog: pytest.LogCaptureFixture,
    example: str,
    reason: str,
) -> None:
    """Whoever writes this hears a goodbye, and the log has this reason."""
    caplog.set_level("INFO", "hisock.server")

    ann.sendall(framed(one_body(to_bytes(code(example)))))
    server.run()
    with ann.makefile("rb") as stream:
        assert stream.read() == framed(b"$DISCONN$")
    assert code(reason) in caplog.text


@pytest.mark.parametrize(("example", "reading"), examples(_ANSWERS))
def test_answer_is_read(example: str, reading: str) -> None:
    """An answer to $GETCLT$ is read so, 1.1's without a closing brace too."""
    answer = decode_answer(one_body(to_bytes(code(example))))

    assert answer is not None
    if answer.info is None:
        assert answer.refusal == code(reading)
    else:
        assert json.loads(json.dumps(answer.info)) == json.loads(code(reading))


@pytest.mark.parametrize(("example", "length", "name", "group"), examples(_ACCEPTED))
def test_hello_is_accepted(example: str, length: str, name: str, group: str) -> None:
    """A server takes this hello, and reads the header length from it."""
    complete = HelloReader(Limits().hello, Limits().name).feed(to_bytes(code(example)))

    hello = Hello(json.loads(code(name)), json.loads(code(group)))
    assert complete == (hello, int(length), b"")


@pytest.mark.parametrize(("example", "reason"), examples(_REFUSED))
def test_hello_is_refused(
    server: HiSockServer,
    caplog: pytest.LogCaptureFixture,
    example: str,
    reason: str,
) -> None:
    """A server closes this connection without a word, and logs this reason."""
    caplog.set_level("DEBUG", "hisock.server")

    with socket.create_connection(server.addr, PATIENCE) as stranger:
        stranger.sendall(to_bytes(code(example)))
        with socket.create_connection(server.addr, PATIENCE) as guest:
            guest.sendall(framed(encode_frame(Hello(None, None))))
            server.run()  # until the guest has joined
        server.run()  # until the guest has left
        assert stranger.recv(1) == b""
    assert code(reason) in caplog.text


@pytest.mark.parametrize(("limit", "default", "beyond"), examples(_LIMITS))
def test_limit_has_this_default(limit: str, default: str, beyond: str) -> None:
    """A limit is as large as the document says."""
    assert getattr(Limits(), code(limit)) == float(default.split()[0])
    assert beyond


# ── the tables of docs/promises.md ──────────────────────────────────────────────────

_PROMISED = dict(read_tables(PROMISES))
_FIELDS = ("Field", "Default", "Unit", "Beyond it")
_POLICIES = ("`when_slow`", "What happens to the message", "Code")
_REASONS = ("Reason", "What happened")


def test_every_limit_is_promised() -> None:
    """No field of ``Limits`` is missing, each with its default, a unit and an end."""
    rows = _PROMISED[_FIELDS]

    assert [code(row["Field"]) for row in rows] == list(Limits.__struct_fields__)
    for row in rows:
        assert getattr(Limits(), code(row["Field"])) == float(row["Default"]), row
        assert row["Unit"], row
        assert row["Beyond it"], row


def test_every_policy_is_promised() -> None:
    """No way to treat a slow peer is missing, and none is made up."""
    listed = [row["`when_slow`"] for row in _PROMISED[_POLICIES]]

    assert {cell.split("`")[1].strip('"') for cell in listed} == WHEN_SLOW


def test_every_reason_of_a_loss_is_promised() -> None:
    """Every word that ``SessionLost.reason`` may be, as its docstring lists them."""
    listed = {code(row["Reason"]) for row in _PROMISED[_REASONS]}
    text = re.search(r"One of ``([a-z_\s]+)``", SessionLost.__doc__ or "")

    assert text is not None
    assert listed == set(text[1].split())


def test_codes_that_are_promised_are_ours() -> None:
    """Every code in a limit's row is one of an error, or of a goodbye."""
    errors = {kind.code for kind in vars(hisock.errors).values() if is_error(kind)}
    known = errors | set(BYE_WORDS.values()) | {"evicted", "overflow"}
    cells = [row["Beyond it"] for row in _PROMISED[_FIELDS]]
    said = {word for cell in cells for word in re.findall(r"`([a-z_]+)`", cell)}

    assert said - {"join_group", "on_error", "connections"} <= known


def is_error(value: object) -> bool:
    """Whether it is one of the errors of hisock."""
    return isinstance(value, type) and issubclass(value, HiSockError)


# ── negotiation and the compact wire ────────────────────────────────────────────────

_WELCOME = encode_frame(Welcome(PROTO, None, None, 0))


@contextmanager
def joined(
    server: HiSockServer, proto: int = PROTO, name: str = "ann"
) -> Iterator[socket.socket]:
    """The bare socket of a client that speaks compact from now on."""
    with socket.create_connection(server.addr, PATIENCE) as sock:
        sock.sendall(framed(encode_frame(Hello(name, None, proto, 0))))
        server.run()
        with sock.makefile("rb") as stream:  # before anything compact can have come
            welcome = decode_control(read_classic(stream), by_client=False)
        assert isinstance(welcome, Welcome)
        sock.sendall(framed(b"$COMPACT$"))
        yield sock


@pytest.mark.parametrize(("name", "why", "example"), examples(_CODES))
def test_refusal_has_this_code(name: str, why: str, example: str) -> None:
    """A refusal is read with this code, and written so."""
    data = to_bytes(code(example))
    refusal = decode_control(one_body(data), by_client=False)

    assert isinstance(refusal, Refusal)
    assert refusal.code == code(name)
    assert framed(encode_frame(refusal, by_client=False)) == data
    assert why


def refusals() -> dict[str, bytes]:
    """The examples of refusals, by their codes."""
    rows = _TABLES[_CODES]
    return {code(row["Code"]): to_bytes(code(row["Example"])) for row in rows}


@pytest.mark.parametrize(
    ("proto", "answer"),
    [
        (PROTO, refusals()["busy"]),
        (0, framed(b"$DISCONN$")),
    ],
    ids=["compact", "classic"],
)
def test_full_server_refuses(proto: int, answer: bytes) -> None:
    """Whoever comes when the server is full reads this and the end."""
    with HiSockServer((HOST, 0), max_connections=1) as server:
        server.on("join")(lambda client: None)
        server.on("leave")(lambda client: None)
        with joined(server) as ann, socket.create_connection(server.addr) as ben:
            ben.settimeout(PATIENCE)
            ben.sendall(framed(encode_frame(Hello("ben", None, proto, 0))))
            ann.sendall(packed([35]))
            ann.shutdown(socket.SHUT_WR)
            server.run(PATIENCE)
            with ben.makefile("rb") as stream:
                assert stream.read() == answer


_OURS = Hello("ann", None, PROTO, 0, "5e" * 16, "a1" * 32, "b2" * 32, window=30)


@pytest.mark.parametrize(
    ("name", "options", "again"),
    [
        ("unauthorized", {}, replace(_OURS, token="c3" * 32)),
        ("protocol", {}, replace(_OURS, got=9)),
        ("kicked", {}, _OURS),
        ("replaced", {"unique_names": "replace"}, _OURS),
        ("name_taken", {"unique_names": "reject"}, Hello("ann", None, PROTO, 0)),
    ],
)
def test_who_comes_again_is_refused(
    name: str, options: dict[str, Any], again: Hello
) -> None:
    """Who may not go on with a session, or have a name, reads this and the end."""
    with ExitStack() as stack:
        server = stack.enter_context(HiSockServer((HOST, 0), **options))
        server.on("join")(lambda client: None)
        server.on("leave")(lambda client: None)

        def come(hello: Hello) -> socket.socket:
            sock = socket.create_connection(server.addr, PATIENCE)
            stack.enter_context(sock)
            sock.sendall(framed(encode_frame(hello)))
            server.run(0.1)
            return sock

        come(_OURS)
        if name == "kicked":
            server.disconnect_client("ann")
        elif name == "replaced":
            come(Hello("ann", None, PROTO, 0))
        with come(again).makefile("rb") as stream:
            server.run(0.1)
            assert stream.read() == refusals()[name]


@pytest.mark.parametrize(
    ("wires", "proto", "answer"),
    [
        (("compact", "classic"), 1, refusals()["version"]),
        (("compact",), 0, framed(b"$DISCONN$")),
        (("classic",), PROTO, framed(b"$NOTLS$")),
    ],
)
def test_versions_and_wires(wires: tuple[str, ...], proto: int, answer: bytes) -> None:
    """Who has no wire in common with a server is told so; classic goes on."""
    hello = framed(encode_frame(Hello("ann", None, proto, 0)))
    with (
        HiSockServer((HOST, 0), wires=wires) as server,
        socket.create_connection(server.addr, PATIENCE) as sock,
        sock.makefile("rb") as stream,
    ):
        sock.sendall(hello + framed(b"$DH_NUMS$"))
        server.run(0.1)
        assert stream.read(len(answer)) == answer


@pytest.mark.parametrize(("example", "reading"), examples(_LENGTHS))
def test_length_is_read(example: str, reading: str) -> None:
    """A length is read as the document says, or refused before a byte of body came."""
    head = to_bytes(code(example))
    frames: list[bytes] = []
    decoder = compact.Decoder(Limits().message)
    if reading == "refused":
        with pytest.raises(RemoteProtocolError):
            decoder.feed(head, frames, [])
    else:
        body = b"\x91\x01".ljust(int(reading))
        assert compact.header(len(body)) == head
        decoder.feed(head + body, frames, [])
        assert frames == [body]


def elements(kind: type[PackedFrame]) -> str:
    """The elements of a frame as the document lists them."""
    fields = kind.__struct_fields__
    needed = len(fields) - len(kind.__struct_defaults__)
    return ", ".join([*fields[:needed], *(f"{field}?" for field in fields[needed:])])


@pytest.mark.parametrize("row", _TABLES[_KINDS], ids=lambda row: row["Name"])
def test_kind_is_right(row: Row) -> None:
    """A frame of this kind has these elements, acts so and is written so."""
    data = to_bytes(code(row["Bytes"]))
    value = to_value(code(row["Example"]))
    frame = compact.decode(one_frame(data))

    assert packed(value) == data
    assert value[0] == int(row["Kind"])
    assert type(frame).__name__ == row["Name"]
    assert elements(type(frame)) == row["Elements after the kind"]
    assert (value[0] in compact.ACTS_AT_ONCE - {compact.REQUEST}) == (
        row["Acts"] == "at once"
    )


@pytest.mark.parametrize("row", _TABLES[_KINDS], ids=lambda row: row["Name"])
def test_elements_may_be_left_out_at_the_end(row: Row) -> None:
    """What has a "?" may be missing, all else not; and more than all is ignored."""
    listed = row["Elements after the kind"].split(", ")
    needed = 1 + len([element for element in listed if not element.endswith("?")])
    value = to_value(code(row["Example"]))
    whole = value + [None] * (1 + len(listed) - len(value))

    assert compact.decode(compact.pack(value[:needed]))
    with pytest.raises(RemoteProtocolError):
        compact.decode(compact.pack(value[: needed - 1]))
    frame = compact.decode(compact.pack(whole))
    assert compact.decode(compact.pack([*whole, "more"])) == frame


def test_kinds_are_complete() -> None:
    """No kind is missing, and a client says what the table says it does."""
    rows = _TABLES[_KINDS]
    kinds = {kind.__name__: kind for kind in get_args(PackedFrame)}
    said = {
        kinds[row["Name"]]
        for row in rows
        if row["From"] in ("client", "both") and row["Acts"] == "in order"
    }

    assert [row["Name"] for row in rows] == list(kinds)
    assert said == set(get_args(ClientFrame))


def test_client_takes_what_it_did_not_ask_for() -> None:
    """A client without a session lives with all that a server says, not with what only
    clients say."""
    with client_with(_WELCOME) as (client, _, sock):
        client.on("shout")(lambda text: None)
        client.send("shout", "hello")
        for frame in ([14, 7], [9, "b"], [10, None], [15, ["c"], []], [32, 7], [34, 1]):
            sock.sendall(packed(frame))
        sock.sendall(packed([1, "shout", "here"]))
        client.update()
        sock.sendall(packed([11, True]))
        with pytest.raises(ClientDisconnected):
            client.update()


def compact_calls(side: str) -> list[tuple[str, bytes]]:
    """The calls of one side, and the compact frames they write."""
    calls: list[tuple[str, bytes]] = []
    for row in _TABLES[_COMPACT_CALLS]:
        data = to_bytes(code(row["On the compact wire"]))
        assert packed(to_value(code(row["Frame"]))) == data
        if (call := code(row["Call"])).startswith(side):
            calls.append((call, data))
    assert calls
    return calls


def test_client_writes_compact_what_the_table_says() -> None:
    """Each call on a client writes these bytes and no others."""
    with client_with(_WELCOME) as (client, stream, _):
        for number, (call, expected) in enumerate(compact_calls("client.")):
            eval(call, {"client": client})
            if not number:
                assert read_classic(stream) == b"$COMPACT$"
            assert stream.read(len(expected)) == expected, call
        client.close()
        assert isinstance(compact.decode(one_frame(stream.read())), Bye)


def test_server_writes_compact_what_the_table_says(server: HiSockServer) -> None:
    """Each call on a server writes these bytes and no others."""
    with joined(server) as ann, ann.makefile("rb") as stream:
        for call, expected in compact_calls("server."):
            eval(call, {"server": server})
            assert stream.read(len(expected)) == expected, call
        ann.shutdown(socket.SHUT_WR)
        server.run()
        assert stream.read() == b""


#: What leads to each failure: what is asked for, in a server of its own.
_FAILING: dict[str, list[Any]] = {
    "handler_failed": [2, 1, "boom", None],
    "unknown_command": [2, 1, "$WHO$", None],
    "conversion": [2, 1, "number", "x"],
    "not_sendable": [2, 1, "huge", None],
    "message_too_large": [2, 1, "long", None],
    "overloaded": [2, 1, "number", 7],
    "forbidden": [2, 1, "locked", None],
    "rate_limited": [2, 1, "rare", None],
    "only_stream": [2, 1, "many", None],
    "no_stream": [2, 1, "number", 7, 64],
    "unknown_client": [2, 1, "$GETCLT$", "Zoe"],
    "refused": [2, 1, "$GETCLT$", "Zoe"],
}


def many(client: Any) -> Iterator[int]:
    """A handler that answers with a stream."""
    yield 1


def number(client: Any, number: int) -> None:
    """A handler that wants a number."""


def boom(client: Any) -> None:
    """A handler that fails."""
    raise ValueError("a secret")


@pytest.mark.parametrize(("name", "when", "example"), examples(_FAILURES))
def test_failure_has_this_code(name: str, when: str, example: str) -> None:
    """A call that comes to nothing is answered with exactly this."""
    roster = code(name) != "refused"
    limits = Limits(message=4096, requests=1)
    with HiSockServer((HOST, 0), limits=limits, roster=roster) as server:
        server.on("join")(lambda client: None)
        server.on("leave")(lambda client: None)
        server.on("boom")(boom)
        server.on("number")(number)
        server.on("many")(many)
        server.on("huge")(lambda client: 2**64)
        server.on("long")(lambda client: "x" * 5000)
        server.on("locked", requires="admin")(lambda client: None)
        server.on("rare", rate="1/h")(lambda client: None)
        asked = _FAILING[code(name)]
        expected = packed(to_value(code(example)))
        with joined(server) as ann, ann.makefile("rb") as stream:
            if code(name) == "rate_limited":  # by the call before it
                ann.sendall(packed([2, 1, "rare", None]))
                server.run(0.1)
                assert stream.read(8) == packed([3, 1, None])
                asked = [2, 3, *asked[2:]]
                expected = packed([4, 3, *to_value(code(example))[2:]])
            if code(name) == "overloaded":  # by a stream that rests for want of credit
                ann.sendall(packed([2, 1, "many", None, 1]))
                server.run(0.1)
                assert stream.read(8) == packed([5, 1, 1])
                asked = [2, 3, *asked[2:]]
                expected = packed([4, 3, *to_value(code(example))[2:]])
            ann.sendall(packed(asked))
            server.run(0.1)
            assert stream.read(len(expected)) == expected
    assert when


def test_failures_are_complete() -> None:
    """Each failure that the table lists is provoked, and no other."""
    assert [code(row["Failure"]) for row in _TABLES[_FAILURES]] == list(_FAILING)


def test_life_time_in_the_text_is_a_point_in_time() -> None:
    """A life time is the clock and the seconds, in milliseconds."""
    text = " ".join(line for line in prose(WIRE) if not line.startswith("|"))
    found = re.search(r"ttl=([\d.]+)\)` .*? clock shows (\d+) is `(.*?)`", text)

    assert found is not None
    frame = compact.decode(one_frame(to_bytes(found[3])))
    assert isinstance(frame, Message)
    assert frame.ttl == int(found[2]) + float(found[1]) * 1000


@pytest.mark.parametrize(("value", "written"), examples(_VALUES))
def test_value_is_written_so(value: str, written: str) -> None:
    """A value is these bytes in MessagePack, and is read as itself."""
    data = to_bytes(code(written))

    assert compact.pack(to_value(code(value))) == data
    assert unpack(data) == to_value(code(value))


@pytest.mark.parametrize(("content", "written"), examples(_TEXT_MODE))
def test_text_mode_writes_so(content: str, written: str) -> None:
    """Content is this JSON on a WebSocket of text messages, or cannot be sent on it."""
    message = compact.pack([1, "it", to_value(code(content))])

    if written == "refused":
        with pytest.raises(NotSendable):
            to_text(message)
    else:
        assert json.loads(to_text(message)) == [1, "it", json.loads(code(written))]


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_integers_have_64_bits(number: int) -> None:
    """An integer of more is refused where it is sent."""
    with pytest.raises(NotSendable):
        compact.pack(number)


@pytest.mark.parametrize(("content", "hint", "gets"), examples(_HINTS))
def test_hint_converts(content: str, hint: str, gets: str) -> None:
    """A handler with this hint gets this of that content."""
    cast = cast_for(to_value(code(hint)))
    assert cast is not None
    value = cast.from_packed(compact.pack(to_value(code(content))))

    assert repr(value) == repr(to_value(code(gets)))


#: How the server of each goodbye is made, where not in the usual way.
_SAYING: dict[str, dict[str, Any]] = {
    "2": {"unique_names": "replace"},
    "4": {"unique_names": "reject"},
    "20": {"limits": Limits(handshake=0.2)},
}


@pytest.mark.parametrize(("number", "when", "example"), examples(_BYES))
def test_goodbye_has_this_code(number: str, when: str, example: str) -> None:
    """A server ends a connection with exactly this."""
    expected = to_value(code(example))
    assert expected[:2] == [35, int(number)]
    assert when
    with (
        HiSockServer((HOST, 0), **_SAYING.get(number, {})) as server,
        ExitStack() as stack,
        socket.create_connection(server.addr, PATIENCE) as sock,
        sock.makefile("rb") as stream,
    ):
        server.on("join")(lambda client: None)
        server.on("leave")(lambda client: None)
        if number == "4":
            stack.enter_context(joined(server, name="ben"))
        if number in ("3", "4", "20"):
            verdict = number == "4"
            server.authenticate(lambda credentials: verdict)
        name = "ben" if number == "4" else "ann"
        sock.sendall(framed(encode_frame(Hello(name, None, PROTO, 0))))
        server.run(0.1)
        assert read_classic(stream).startswith(b"$WELCOME$")
        sock.sendall(framed(b"$COMPACT$"))
        bring_about(server, sock, number, expected[2])
        if number in ("3", "4", "20"):  # said in its own time
            while not select.select([sock], [], [], 0)[0]:
                server.run(0.01)
        assert stream.read() == packed(expected)


def bring_about(
    server: HiSockServer, ann: socket.socket, number: str, text: str
) -> None:
    """Have a server say this goodbye to ann."""
    match number:
        case "0":
            ann.shutdown(socket.SHUT_WR)
            server.close()
        case "1" | "16":
            server.run(0.1)
            server.disconnect_client("ann", reason=text, reconnect=number == "16")
        case "2":
            server.run(0.1)
            with joined(server):
                ann.shutdown(socket.SHUT_WR)
        case "3" | "4":
            ann.sendall(packed([38, "a guess"]))
        case "20":
            pass
        case _:
            ann.sendall(b"\x00\x00\x00\x01" if number == "5" else b"\x01\x00\x00\x01")
            server.run()


@pytest.mark.parametrize(("example", "number", "reason"), examples(_BROKEN_FRAMES))
def test_broken_frame_ends_the_connection(
    server: HiSockServer, example: str, number: str, reason: str
) -> None:
    """Whoever writes this hears a goodbye of this code with this text."""
    server.on("shout")(lambda client, content: None)
    with joined(server) as ann, ann.makefile("rb") as stream:
        ann.sendall(to_bytes(code(example)))
        server.run()
        bye = compact.decode(one_frame(stream.read()))
    assert isinstance(bye, Bye)
    assert bye.code == int(number)
    assert code(reason) in bye.text


# ── sessions and authentication ─────────────────────────────────────────────────────


def test_fields_of_a_session_are_complete() -> None:
    """The table names what a hello and a welcome have beside what all have."""
    usual = {"name", "group", "proto", "now", "auth"}
    for kind, side in ((Hello, "client"), (Welcome, "server")):
        rows = _TABLES[_SESSION_FIELDS]
        said = {code(row["Field"]) for row in rows if row["From"] in (side, "both")}
        assert said == set(kind.__struct_fields__) - usual


@pytest.mark.parametrize("row", _TABLES[_FIRST_KINDS], ids=lambda row: row["Name"])
def test_kind_that_comes_first_is_right(row: Row) -> None:
    """What comes first where proof is asked for is written so, and nothing later."""
    data = to_bytes(code(row["Bytes"]))
    value = to_value(code(row["Example"]))
    by_client = row["From"] == "client"

    assert packed(value) == data
    assert value[0] == int(row["Kind"])
    first = compact.decode_first(data[4:], by_client=by_client)
    assert elements(type(first)) == row["Elements after the kind"]  # type: ignore[arg-type]
    with pytest.raises(RemoteProtocolError):
        compact.decode(data[4:])
    with pytest.raises(RemoteProtocolError):
        compact.decode_first(data[4:], by_client=not by_client)
