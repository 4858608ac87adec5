"""What the world does to a port, a process and its descriptors.

Strangers, floods, claims, other event loops, a full descriptor table, every way for a
program to end, and forks. An honest client must not notice any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hisock import (
    ClientDisconnected,
    ClientInfo,
    Limits,
    connect,
    start_server,
    start_threaded_server,
    threaded_connect,
)
from hisock.client import HiSockClient
from hisock.server import HiSockServer

from .raw import (
    CLIENT_GOODBYE,
    HOST,
    SERVER_GOODBYE,
    Listener,
    Raw,
    Stage,
    counts_descriptors,
    ends_within,
    eventually,
    frame,
    header,
    hello,
    in_thread,
    needs_posix,
    open_descriptors,
    served,
    turn_server,
)

pytestmark = pytest.mark.timeout(30)

STRANGERS = {
    "HTTP HEAD": b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP POST with a hello": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n"
        + frame(hello("form"))
        + frame(b"ping x")
    ),
    "hello after a newline": b"\r\n" + frame(hello("form")) + frame(b"ping x"),
    "hello after a space": b" " + frame(hello("form")) + frame(b"ping x"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS ClientHello": bytes.fromhex("16030100f1010000ed0303") + bytes(230),
    "SSLv2 hello": bytes.fromhex("802e0100020015000000100100800200800300"),
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "RTSP": b"OPTIONS rtsp://localhost/ RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    "PROXY 1": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + frame(hello("proxied")),
    "PROXY 2": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12),
    "SOCKS": b"\x05\x01\x00",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "zeros": bytes(64),
    "hisock 2": frame(b'$CLTHELLO${"name": "x", "group": null}'),
}

#: Ways in which a program ends, as the last lines of a script.
ENDINGS = {
    "return": "pass",
    "exception": "raise RuntimeError('on purpose')",
    "sys.exit": "sys.exit(3)",
    "Ctrl-C": "while True: it.turn()",
}

_STATM = Path("/proc/self/statm")

needs_proc = pytest.mark.skipif(not _STATM.exists(), reason="needs /proc")


def resident() -> int:
    """Bytes of memory that this process really has."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- strangers ---------------------------------------------------------------------


@pytest.mark.parametrize("given", list(STRANGERS.values()), ids=list(STRANGERS))
def test_f14_stranger_is_closed_at_once(given: bytes) -> None:
    """Whatever else is spoken to the port ends it, unanswered, with no handler run."""
    with Stage() as stage:
        stage.record("ping", "message")
        with stage.stranger() as peer:
            began = time.monotonic()
            peer.throw(given)
            assert peer.take_all() == b""
            assert time.monotonic() - began < 0.5
        assert stage.joined == ["honest"]
        assert stage.ran == []


@pytest.mark.parametrize("alone", [True, False], ids=["one byte", "five bytes"])
def test_f14_every_first_byte(alone: bool) -> None:
    """Only a digit is waited for, and what may begin a GET; after these, only what may
    be a length or that."""
    with Stage() as stage, contextlib.ExitStack() as stack:
        stage.record("message")
        peers = []
        for first in range(256):
            if not alone or first not in b"G0123456789":
                peer = stack.enter_context(stage.stranger())
                peer.throw(bytes([first]) + (b"" if alone else b"!\r\n\r"))
                peers.append(peer)
        for peer in peers:
            assert peer.take_all() == b""
        assert stage.joined == ["honest"]
        assert stage.ran == []


@pytest.mark.parametrize("first", [b"1", b"52", b"52              ", b"0"])
def test_f14_a_digit_waits_for_the_deadline(first: bytes) -> None:
    """What may become a hello is waited for, but not longer than the handshake's."""
    with Stage(limits=Limits(handshake=0.2)) as stage, stage.stranger() as peer:
        peer.send(first)
        assert peer.take_all() == b""
        assert stage.joined == ["honest"]


def test_t01_dribbled_hello_is_ended() -> None:
    """A byte now and then does not prolong the handshake: its end is fixed."""
    with Stage(limits=Limits(handshake=0.4)) as stage, stage.stranger() as peer:
        began = time.monotonic()
        whole = frame(hello("dribbler"))
        peer.sock.settimeout(0.02)
        for at in range(len(whole)):
            peer.throw(whole[at : at + 1])
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                assert peer.sock.recv(1) == b""
                break
        else:
            pytest.fail("it was never ended")
        assert 0.3 < time.monotonic() - began < 1.4
        assert stage.joined == ["honest"]


def test_t01_hello_within_the_deadline() -> None:
    """Who dribbles a hello in time is served, and has no deadline afterwards."""
    with Stage(limits=Limits(handshake=0.3)) as stage, stage.peer() as peer:
        with stage.stranger() as late:
            assert late.take_all() == b""  # by now the first one's time is over
        peer.send(frame(b"echo x"))
        assert peer.take_frame() == b"x"


def test_t01_silent_crowd_leaves_room() -> None:
    """More silent connections than may be unfinished: an honest client still joins."""
    with (
        Stage(limits=Limits(unfinished=8, handshake=20.0)) as stage,
        contextlib.ExitStack() as stack,
    ):
        crowd = [stack.enter_context(stage.stranger()) for _ in range(40)]
        began = time.monotonic()
        stage.peer("late").sock.close()
        assert time.monotonic() - began < 1.0
        # The oldest had to go, the newest may still say hello.
        assert crowd[0].take_all() == b""
        crowd[-1].send(frame(hello("newest")))
        eventually(lambda: "newest" in stage.joined, "the newest joins")


def test_t01_the_silent_go_before_those_who_spoke() -> None:
    """Room is made at the cost of who said nothing, not of who is amid its hello."""
    with Stage(limits=Limits(unfinished=8, handshake=20.0)) as stage:
        whole = frame(hello("slow"))
        with stage.stranger() as slow, contextlib.ExitStack() as stack:
            slow.send(whole[:20])
            stage.check()
            for _ in range(20):
                stack.enter_context(stage.stranger())
            stage.check()
            slow.send(whole[20:])
            eventually(lambda: "slow" in stage.joined, "the slow one joins")


@counts_descriptors
def test_f15_port_scan_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand connections, closed, reset or amid a hello: no descriptor, no log."""
    caplog.set_level(logging.INFO, "hisock")
    with Stage() as stage:
        before, lines = open_descriptors(), len(caplog.records)
        for number in range(1000):
            with stage.stranger() as scan:
                if number % 3 == 1:
                    scan.send(frame(hello())[:20])
                if number % 3 == 2:
                    scan.reset()
        eventually(lambda: open_descriptors() == before, "all are closed")
        assert len(caplog.records) == lines
        assert stage.joined == ["honest"]


# --- memory ------------------------------------------------------------------------


@needs_proc
@pytest.mark.parametrize("largest", [16 * 1024 * 1024, 0], ids=["limit", "no limit"])
def test_t11_claims_allocate_nothing(largest: int) -> None:
    """A hundred claims of 2 GB: memory grows with bytes that come, not with claims."""
    with (
        Stage(limits=Limits(message=largest)) as stage,
        contextlib.ExitStack() as stack,
    ):
        peers = [stack.enter_context(stage.peer(f"p{n}")) for n in range(100)]
        stage.check()
        before = resident()
        for peer in peers:
            peer.throw(header(2_000_000_000) + b"ping x")
        if largest:
            for peer in peers:
                assert peer.take_all().endswith(frame(SERVER_GOODBYE))
        stage.check()
        assert resident() - before < 16 * 1024 * 1024


@needs_proc
def test_t11_claims_to_a_client_allocate_nothing() -> None:
    """The same for our client, that a server lies to."""
    with contextlib.ExitStack() as stack:
        pairs = [
            stack.enter_context(served(limits=Limits(message=0))) for _ in range(100)
        ]
        before = resident()
        for client, server in pairs:
            server.send(header(2_000_000_000) + b"ping x")
            client.update()
        assert resident() - before < 16 * 1024 * 1024


@needs_proc
def test_t11_claims_in_a_hello_allocate_nothing() -> None:
    """A hello's length is looked at before any of it is kept."""
    with Stage() as stage, contextlib.ExitStack() as stack:
        before = resident()
        for _ in range(100):
            peer = stack.enter_context(stage.stranger())
            peer.throw(header(2_000_000_000) + hello())
            assert peer.take_all() == b""
        assert resident() - before < 16 * 1024 * 1024


# --- servers nobody turns, and other people's loops --------------------------------


def test_server_that_nobody_turns() -> None:
    """Sends and the end work from other threads while no ``run()`` is on."""
    server = start_server((HOST, 0), blocking=False)
    with server, Raw.call(server.get_addr()) as peer:
        peer.send(frame(hello("one", "g")))
        turn_server(server, lambda: len(server), "it joins")

        def talk() -> None:
            server.send_client("one", "a")
            server.send_group_raw("g", "b")
            server.send_all_clients("c")
            server.disconnect_client("one")

        talker = in_thread(talk)
        said = b"".join(map(frame, (b"a ", b"b", b"c ", SERVER_GOODBYE)))
        assert peer.take_all() == said
        assert ends_within(talker, 1.0)
        assert len(server) == 0


def test_server_that_nobody_turns_closes() -> None:
    """``close()`` from another thread tells all, runs ``leave``, frees the port."""
    left: list[Any] = []
    server = start_server((HOST, 0), blocking=False)
    server.on("leave")(lambda client: left.append(client["name"]))
    with Raw.call(server.get_addr()) as peer:
        peer.send(frame(hello("one")))
        turn_server(server, lambda: len(server), "it joins")
        closing = in_thread(server.close)
        assert peer.take_all() == frame(SERVER_GOODBYE)
        peer.sock.close()
        assert ends_within(closing, 1.0)
    assert left == ["one"]
    start_server(server.get_addr()).close()


def test_server_that_was_never_turned_closes() -> None:
    """Without a single turn, with a stranger at the door, it closes all the same."""
    server = start_server((HOST, 0))
    with Raw.call(server.get_addr()) as peer:
        peer.send(frame(hello()))
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 1.5
        assert peer.take_all() == b""


def test_run_inside_a_running_loop() -> None:
    """In a coroutine ``run()`` works, and the loop around it goes on afterwards."""
    ticks: list[int] = []

    async def tick() -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ticking = asyncio.create_task(tick())
        with start_server((HOST, 0)) as server:
            server.on("echo")(lambda one, text: server.send_client_raw(one, text))
            with Raw.call(server.get_addr()) as peer:
                peer.send(frame(hello()))
                for _ in range(3):
                    before = len(ticks)
                    peer.send(frame(b"echo x"))
                    server.run()
                    assert peer.take_frame() == b"x"
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    assert len(ticks) > before
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is not None
        ticking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ticking
        assert await asyncio.to_thread(int, "7") == 7

    asyncio.run(main())
    assert ticks


def _server_whose_handler_runs_a_loop() -> tuple[Any, list[int]]:
    ran: list[int] = []
    server = start_server((HOST, 0))

    async def seven() -> int:
        await asyncio.sleep(0)
        return 7

    @server.on("go")
    def go(client: ClientInfo, message: bytes) -> None:
        ran.append(asyncio.run(seven()))
        server.send_client_raw(client, "done")

    return server, ran


def _go_twice(server: Any) -> None:
    with server, Raw.call(server.get_addr()) as peer:
        peer.send(frame(hello()))
        for _ in range(2):
            peer.send(frame(b"go"))
            server.run()
            assert peer.take_frame() == b"done"


def test_handler_may_run_a_loop() -> None:
    """A plain handler may call ``asyncio.run()`` itself."""
    server, ran = _server_whose_handler_runs_a_loop()
    _go_twice(server)
    assert ran == [7, 7]


def test_handler_may_run_a_loop_inside_a_running_loop() -> None:
    """The loop around ``run()`` is set aside for the whole turn, handlers included."""
    server, ran = _server_whose_handler_runs_a_loop()

    async def main() -> None:
        _go_twice(server)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert ran == [7, 7]


def test_client_inside_a_running_loop() -> None:
    """A client's ``update()`` and ``recv_raw()`` have nothing against a loop either."""

    async def main() -> None:
        with served(blocking=True) as (client, server):
            got: list[bytes] = []
            client.on("ping")(lambda content: got.append(content))
            server.send(frame(b"ping x") + frame(b"raw"))
            client.update()
            assert client.recv_raw() == b"raw"
            assert got == [b"x"]
        await asyncio.sleep(0)

    asyncio.run(main())


# --- descriptors -------------------------------------------------------------------


@pytest.fixture
def crowded() -> Iterator[None]:
    """A process in which every new descriptor is over 1,100."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2048
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"only {hard} descriptors are allowed here")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        first = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, first)
        while (each := os.dup(first)) < 1100:
            stack.callback(os.close, each)
        stack.callback(os.close, each)
        yield


@needs_posix
@pytest.mark.usefixtures("crowded")
def test_h17_more_than_1024_descriptors() -> None:
    """Server and clients work at descriptors that ``select.select`` cannot name."""
    with Stage() as stage:
        assert stage.server.get_client("honest")["socket"].fileno() > 1024
        got: list[bytes] = []
        with (
            stage.peer(),
            connect(stage.address, "two") as two,
            threaded_connect(stage.address, "three") as three,
        ):
            three.on("news")(lambda content: got.append(content))
            two.on("news")(lambda content: got.append(content))
            eventually(lambda: len(stage.server) == 4, "all join")
            stage.server.send_all_clients("news", b"x")
            two.update()
            eventually(lambda: got == [b"x", b"x"], "both hear it")
            stage.honest.on("news")(lambda: None)


SMALL_PROCESS = """
import logging, resource, sys, hisock
logging.basicConfig(level=logging.WARNING)
server = hisock.start_server(("127.0.0.1", 0), limits=hisock.Limits(handshake=0))
server.on("echo")(lambda one, text: server.send_client_raw(one, text))
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
print(server.get_addr()[1], flush=True)
while True:
    server.run()
"""


@needs_posix
def test_f16_out_of_descriptors() -> None:
    """Without descriptors the server serves on, waits calmly, and then recovers."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SMALL_PROCESS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            where = (HOST, int(process.stdout.readline()))
            with connect(where, "honest") as honest:
                honest.raw_send(b"echo 1")
                assert honest.recv_raw() == b"1"
                with contextlib.ExitStack() as stack:
                    for _ in range(60):
                        stack.enter_context(Raw.call(where))
                    for number in range(100):
                        honest.raw_send(b"echo %d" % number)
                        assert honest.recv_raw() == b"%d" % number
                with Raw.call(where) as late:
                    late.send(frame(hello("late")) + frame(b"echo x"))
                    while (body := late.take_frame()).startswith(b"$"):
                        pass
                    assert body == b"x"
        finally:
            process.kill()
            _, log = process.communicate()
    assert 1 <= log.count("out of descriptors") <= 8
    assert "Traceback" not in log


# --- how programs end --------------------------------------------------------------

CLIENT_PROGRAM = """
import sys, hisock
it = hisock.connect(("127.0.0.1", int(sys.argv[1])), "guest")
it.turn = it.update
print("ready", flush=True)
sys.stdin.readline()
{ending}
"""

SERVER_PROGRAM = """
import sys, hisock
it = hisock.start_server(("127.0.0.1", 0))
it.on("join")(print)
it.turn = it.run
print(it.get_addr()[1], flush=True)
it.run()
sys.stdin.readline()
{ending}
"""


@contextlib.contextmanager
def program(text: str, *arguments: str) -> Iterator[tuple[Any, str]]:
    """A running Python program and the first line it prints."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", text, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def let_go_on(process: Any) -> None:
    """Give the program the line of input it waits for."""
    process.stdin.write("\n")
    process.stdin.flush()


def end_program(process: Any, ending: str) -> None:
    """Let the program come to its last lines; press Ctrl-C if that is its end."""
    let_go_on(process)
    if ending != "Ctrl-C":
        process.wait(10)
        return
    for _ in range(4):
        process.send_signal(signal.SIGINT)
        # A signal that comes a moment before Python begins to wait is noticed only
        # when that wait ends; whoever sits there presses the keys again.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2.5)
            return
    pytest.fail("Ctrl-C does not end it")


def _skip_without_ctrl_c(ending: str) -> None:
    if ending == "Ctrl-C" and os.name != "posix":
        pytest.skip("Windows has no SIGINT for one process")


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_atexit_client_program_leaves_at_once(
    ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However a program ends, its client says goodbye: ``leave`` runs at once."""
    _skip_without_ctrl_c(ending)
    caplog.set_level(logging.INFO, "hisock.server")
    text = CLIENT_PROGRAM.format(ending=ENDINGS[ending])
    with Stage() as stage, program(text, str(stage.address[1])) as (process, line):
        assert line == "ready"
        eventually(lambda: "guest" in stage.joined, "it joins")
        end_program(process, ending)
        eventually(lambda: stage.left == ["guest"], "it leaves", within=1.0)
        shown = process.stderr.read()
    codes = {"return": 0, "exception": 1, "sys.exit": 3}
    assert process.returncode == codes.get(ending, process.returncode)
    assert "ResourceWarning" not in shown
    assert "Exception ignored" not in shown
    assert "the client said goodbye" in caplog.text


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_atexit_server_program_says_goodbye(ending: str) -> None:
    """However a program ends, its server tells every client."""
    _skip_without_ctrl_c(ending)
    text = SERVER_PROGRAM.format(ending=ENDINGS[ending])
    with program(text) as (process, line), Raw.call((HOST, int(line))) as peer:
        peer.send(frame(hello()))
        assert "bad" in process.stdout.readline()
        end_program(process, ending)
        assert peer.take_all() == frame(SERVER_GOODBYE)


@pytest.mark.parametrize("ending", ["exception", "Ctrl-C"])
def test_atexit_threaded_client_follows_its_main_thread(ending: str) -> None:
    """A threaded client does not keep a crashed program alive, and says goodbye."""
    _skip_without_ctrl_c(ending)
    text = (
        "import sys, time, hisock\n"
        "it = hisock.threaded_connect(('127.0.0.1', int(sys.argv[1])), 'guest')\n"
        "it.start_client()\n"
        "it.turn = lambda: time.sleep(0.01)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with Stage() as stage:
        arguments = (text + ENDINGS[ending], str(stage.address[1]))
        with program(*arguments) as (process, _):
            eventually(lambda: "guest" in stage.joined, "it joins")
            end_program(process, ending)
            eventually(lambda: stage.left == ["guest"], "it leaves", within=1.0)


@pytest.mark.parametrize("start", [connect, threaded_connect])
def test_dropped_client_says_goodbye(start: Callable[..., Any]) -> None:
    """The last reference gone, the client is: no descriptor, no warning, a goodbye."""
    listener = Listener()
    with listener.sock:
        client = start(listener.address, "us")
        with listener.accept() as server:
            del client
            gc.collect()
            server.take_hello("us", session=True)
            assert server.take_all() == frame(CLIENT_GOODBYE)


@counts_descriptors
@pytest.mark.parametrize("start", [start_server, start_threaded_server])
def test_dropped_server_says_goodbye(start: Callable[..., Any]) -> None:
    """The last reference gone, a server tells its clients and frees everything."""
    before = open_descriptors()
    servers = [start((HOST, 0), blocking=False)]
    where = servers[0].get_addr()
    with Raw.call(where) as peer:
        peer.send(frame(hello()))

        def has_joined() -> bool:
            HiSockServer.run(servers[0])  # a threaded one, too, is turned here
            return len(servers[0]) == 1

        eventually(has_joined, "it joins")
        servers.clear()
        gc.collect()
        assert peer.take_all() == frame(SERVER_GOODBYE)
    assert open_descriptors() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where)


def _echo_of(client: HiSockClient) -> Callable[[bytes], None]:
    return lambda content: client.raw_send(content)


def test_dropped_client_is_collected_amid_handlers() -> None:
    """A handler that refers to its client is a cycle, which collection still ends."""
    listener = Listener()
    with listener.sock:
        clients = [connect(listener.address, "us")]
        clients[0].on("ping")(_echo_of(clients[0]))
        with listener.accept() as server:
            clients.clear()
            gc.collect()
            assert server.take_all().endswith(frame(CLIENT_GOODBYE))


# --- forks -------------------------------------------------------------------------

FORKING_CLIENT = """
import os, sys, hisock
client = hisock.connect(("127.0.0.1", int(sys.argv[1])), "guest")
child = os.fork()
if not child:
    {child}
status = os.waitpid(child, 0)[1]
for number in range(3):
    client.send("echo", number)
    assert client.recv_raw() == b"%d" % number
print("still here", status, flush=True)
sys.stdin.readline()
"""

FORKING_SERVER = """
import os, sys, threading, hisock
server = hisock.start_server(("127.0.0.1", 0))
server.on("echo")(lambda one, text: server.send_client_raw(one, text))
print(server.get_addr()[1], flush=True)
server.run()
child = os.fork()
if not child:
    {child}
status = os.waitpid(child, 0)[1]
print("forked", status, flush=True)
def turn():
    while True:
        server.run()
        if not len(server): break
turning = threading.Thread(target=turn)
turning.start()
sys.stdin.readline()
server.close()
turning.join()
print("closed", flush=True)
"""

CHILD_ENDS = {
    "sys.exit": "sys.exit(0)",
    "os._exit": "os._exit(0)",
    "drops it": "client = server = None; sys.exit(0)",
    "uses it": "{use}",
}

USES_CLIENT = """
    for use in (lambda: client.send("echo"), client.update, client.recv_raw):
        try:
            use()
        except hisock.ClientDisconnected as error:
            assert "the parent's, which forked" in str(error), error
        else:
            os._exit(2)
    client.close()
    os._exit(0)
"""

USES_SERVER = """
    for use in (server.run, lambda: server.send_all_clients("echo"), server.poll):
        try:
            use()
        except hisock.errors.ServerClosed as error:
            assert "the parent's, which forked" in str(error), error
        else:
            os._exit(2)
    server.close()
    os._exit(0)
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@needs_fork
@pytest.mark.parametrize("child", list(CHILD_ENDS.values()), ids=list(CHILD_ENDS))
def test_f36_fork_of_a_client(child: str) -> None:
    """A forked child's end says no goodbye: the parent's session goes on, and what the
    child calls on it is refused."""
    with Stage() as stage:
        text = FORKING_CLIENT.format(child=child.replace("{use}", USES_CLIENT))
        with program(text, str(stage.address[1])) as (process, line):
            assert line == "still here 0"
            assert stage.left == []
            end_program(process, "return")
            eventually(lambda: stage.left == ["guest"], "the parent leaves")


@needs_fork
@pytest.mark.parametrize("child", list(CHILD_ENDS.values()), ids=list(CHILD_ENDS))
def test_f36_fork_of_a_server(child: str) -> None:
    """Nor for the parent's clients: they are served on, and close still wakes it."""
    text = FORKING_SERVER.format(child=child.replace("{use}", USES_SERVER))
    with program(text) as (process, line):
        with Raw.call((HOST, int(line))) as peer:
            peer.send(frame(hello()) + frame(b"echo 0"))
            assert peer.take_frame() == b"0"
            assert process.stdout.readline() == "forked 0\n"
            for number in range(3):
                peer.send(frame(b"echo %d" % number))
                assert peer.take_frame() == b"%d" % number
            began = time.monotonic()
            let_go_on(process)
            assert peer.take_all() == frame(SERVER_GOODBYE)
            assert time.monotonic() - began < 1.0
        process.wait(5)
        assert process.stdout.readline() == "closed\n"


def test_no_thread_stays_behind() -> None:
    """Servers and clients that are closed leave no thread."""
    before = set(threading.enumerate())
    with Stage() as stage, threaded_connect(stage.address, "two"):
        eventually(lambda: "two" in stage.joined, "it joins")
    assert set(threading.enumerate()) - before == set()


def test_errors_while_closing_are_contained() -> None:
    """A client that ends while the server closes is no trouble to either."""
    server = start_threaded_server((HOST, 0))
    with server:
        clients = [connect(server.get_addr(), f"c{n}") for n in range(5)]
        eventually(lambda: len(server) == 5, "all join")
        closing = in_thread(server.stop_server)
        for client in clients:
            with contextlib.suppress(ClientDisconnected):
                client.raw_send("x")
            client.close()
        assert ends_within(closing, 1.0)
