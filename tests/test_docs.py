"""Every program and every example of bytes in the documents is true.

How a document says what its blocks are:

- A comment on the line above a ``python`` block says how it runs: ``<!-- run -->`` by
  itself, ``<!-- run: server -->`` together with the next python block, which then is
  its ``<!-- run: client -->``. The port 6969 is replaced by a free one. A block
  without a comment is a mistake.
- A ``text`` block that is the next one below such a program, in the same section, is
  what it prints: each line has to appear. Any other ``text`` block is a drawing.
- A ``wire`` block (``docs/wire.md``) is a conversation with the server in it.
"""

from __future__ import annotations

import ast
import json
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_args

import pytest

from hisock import HiSockClient, HiSockServer
from hisock.errors import RemoteProtocolError
from hisock.types import Limits
from hisock.wire.classic import (
    Decoder,
    HelloReader,
    decode_answer,
    decode_control,
    encode_frame,
    header,
)
from hisock.wire.frames import Bye, Frame, Hello

ROOT = Path(__file__).resolve().parent.parent
WIRE = ROOT / "docs" / "wire.md"
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


def framed(body: bytes, header_len: int = HEADER_LEN) -> bytes:
    """A body behind its header."""
    return header(len(body), header_len) + body


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


def wire_program(marker: str) -> Block:
    """The server or the client of docs/wire.md."""
    [block] = [b for b in PROGRAMS if b.path == WIRE and b.marker == marker]
    return block


def test_whole_client_is_small_and_plain() -> None:
    """A client fits into 40 lines of Python that import nothing of ours."""
    text = wire_program("run: client").text
    imported: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")

    assert len([line for line in text.splitlines() if line.strip()]) <= 40
    assert imported <= {"json", "socket"}


# ── the conversations of docs/wire.md ───────────────────────────────────────────────

_PORTS = {"ann": b"50001", "ben": b"50002"}
_STEP = re.compile(r"(ann|ben) ([<>]) (.+)")


class Voices:
    """The clients of a conversation, as bare sockets."""

    def __init__(self, stack: ExitStack, port: int) -> None:
        self._stack = stack
        self._port = port
        self._socks: dict[str, socket.socket] = {}
        self._ports: dict[bytes, bytes] = {}

    def sock(self, who: str) -> socket.socket:
        """The socket of a client, connected when it is first needed."""
        if who not in self._socks:
            sock = socket.create_connection((HOST, self._port), PATIENCE)
            self._socks[who] = self._stack.enter_context(sock)
            own = b"%d" % sock.getsockname()[1]
            assert len(own) == 5, "the lengths in the document count five digits"
            self._ports[_PORTS[who]] = own
        return self._socks[who]

    def play(self, who: str, direction: str, what: str) -> None:
        """Write what the document writes, or read what it reads."""
        sock = self.sock(who)
        ends = what == "(end)"
        if direction == "<":
            data = b"" if ends else self._fill(to_bytes(what))
            assert self._read(sock, max(1, len(data))) == data
        elif ends:
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.sendall(self._fill(to_bytes(what)))

    def _fill(self, data: bytes) -> bytes:
        for written, own in self._ports.items():
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
    _, port = serve(stage, wire_program("run: server"))

    with ExitStack() as stack:
        voices = Voices(stack, port)
        for line in block.text.splitlines():
            if line and not line.startswith("#"):
                step = _STEP.fullmatch(line)
                assert step is not None, line
                voices.play(step[1], step[2], step[3])


@pytest.mark.parametrize("block", CONVERSATIONS, ids=str)
def test_conversation_is_read_by_our_decoder(block: Block) -> None:
    """Every line is whole frames, except for the one that shows how to break a rule."""
    decoders: dict[tuple[str, str], Decoder] = {}
    header_lens: dict[str, int] = {}
    for line in block.text.splitlines():
        step = _STEP.fullmatch(line)
        if step is None or step[3] == "(end)":
            continue
        who, direction, data = step[1], step[2], to_bytes(step[3])
        if who not in header_lens:
            header_lens[who] = data.index(b"$")
        header_len = header_lens[who]
        decoder = decoders.setdefault(
            (who, direction), Decoder(header_len, 0, bare_tokens=direction == ">")
        )
        bodies: list[bytes] = []
        if data.startswith(b"0") and data[1:2].isdigit():
            with pytest.raises(RemoteProtocolError):
                decoder.feed(data, bodies)
            continue
        decoder.feed(data, bodies)
        written = b"".join(framed(body, header_len) for body in bodies)
        bare = data.startswith((b"$CHNAME$", b"$CHGROUP$"))
        assert bodies
        assert bare or written == data


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
_PROSE = {("What 1.1 does", "What we do")}


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


def test_every_table_is_checked() -> None:
    """A new table in the document needs a test here, unless it is prose."""
    checked = {_HEADERS, _CALLS, _RESERVED, _BROKEN, _ANSWERS, _ACCEPTED, _REFUSED}
    assert set(_TABLES) == checked | _PROSE | {_LIMITS}
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


def test_frames_in_the_text_are_frames() -> None:
    """A frame quoted in a sentence is whole."""
    text = "\n".join(line for line in prose(WIRE) if not line.startswith("|"))
    quoted = re.findall(r"`(\d+·[^`\n]*)`", text)

    assert quoted
    for example in quoted:
        assert one_body(to_bytes(example))


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


def test_client_writes_what_the_table_says() -> None:
    """Each call on a client writes these bytes and no others."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(PATIENCE)
        client = HiSockClient(listener.getsockname(), header_len=HEADER_LEN)
        sock, _ = listener.accept()
        sock.settimeout(PATIENCE)
        with sock, sock.makefile("rb") as stream:
            hello = framed(encode_frame(Hello(None, None)))
            assert stream.read(len(hello)) == hello
            for call, expected in written_by("client"):
                eval(call, {"client": client})
                assert stream.read(len(expected)) == expected, call
            sock.shutdown(socket.SHUT_WR)
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
        assert framed(encode_frame(frame)) == data
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
