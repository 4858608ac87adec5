"""A socket that speaks WebSocket, where a program is interrupted or forks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import warnings
from pathlib import Path

import pytest
from tests.contract.authorities import Authorities
from tests.faults.raw import (
    HOST,
    PATIENCE,
    Listener,
    ends_within,
    eventually,
    in_thread,
    needs_posix,
)
from tests.web.raw import Web, array, call_web, hello

from hisock import connect, start_threaded_server
from hisock.engine.upgrade import UpgradedSocket
from hisock.errors import ServerNotRunning
from hisock.wire.ws_client import ClientSide

from .test_blocking import interrupt_at


@pytest.mark.parametrize("wire", ["ws", "wss", "tls"])
def test_an_interrupt_anywhere_in_a_send_writes_nothing_twice(
    tmp_path: Path, wire: str
) -> None:
    """Ctrl-C costs the link at most: each message arrives once, and in order."""
    files = Authorities(tmp_path) if wire != "ws" else None
    came: list[int] = []
    lost: list[object] = []
    cert = None if files is None else files.server
    with start_threaded_server((HOST, 0), tls=cert) as server:
        server.on("it")(lambda client, number: came.append(number))
        host, port = server.addr
        address = (host, port) if wire == "tls" else f"{wire}://{host}:{port}"
        with connect(address, "ann", tls={"ca": files.ca} if files else None) as client:
            client.on_session_lost(lost.append)
            place = number = 0
            is_struck = True
            while is_struck:
                number += 1
                try:
                    with interrupt_at(place) as reached:
                        client.send("it", number)
                except KeyboardInterrupt:
                    pass
                is_struck = bool(reached)
                number += 1
                client.send("it", number)
                end = time.monotonic() + 3
                while number not in came:
                    client.update(timeout=0.01)
                    assert time.monotonic() < end, (reached, came)
                assert came in ([number - 1, number], [number]), reached
                assert not lost, reached
                came.clear()
                place += 3  # places in one function fare alike


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nno\n", "503 Busy: no"),
        (b"", "the other side closed the connection"),
    ],
)
def test_the_first_connection_is_tried_once(answer: bytes, reason: str) -> None:
    """Who is not there just now is told of at once, unless ``wait=`` says otherwise."""
    listener = Listener()
    host, port = listener.address
    calls: list[None] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                with Web(listener.sock.accept()[0]) as peer:
                    calls.append(None)
                    peer.take_head()
                    peer.send(answer)

    thread = in_thread(serve)
    try:
        with pytest.raises(ServerNotRunning, match=reason):
            connect(f"ws://{host}:{port}")
        assert len(calls) == 1
        with pytest.raises(ServerNotRunning, match=reason):
            connect(f"ws://{host}:{port}", wait=1.5)
        assert len(calls) > 2
    finally:
        listener.sock.shutdown(socket.SHUT_RDWR)
        listener.sock.close()
        assert ends_within(thread, PATIENCE)


def test_who_came_back_elsewhere_hears_that_the_server_is_there() -> None:
    """A session that goes on over a new link closes the old one without a goodbye."""
    first, second, third = (letter * 64 for letter in "abc")
    session = {"sid": "d" * 32, "got": 0, "epoch": None, "window": 9, "beats": False}
    with (
        start_threaded_server((HOST, 0)) as server,
        call_web(server.addr) as old,
        call_web(server.addr) as new,
    ):
        old.send(hello("ann", token=first, next=second, **session))
        session["epoch"] = old.take_array()[1]["epoch"]
        old.send(array(32, 0))
        new.send(hello("ann", token=second, next=third, **session))

        assert new.take_array()[1]["resumed"]
        assert old.expect_close() == (1001, "going_away")


@needs_posix
def test_a_forked_child_lets_go_of_what_another_thread_was_writing_to() -> None:
    """That thread held the lock, and is not there in the child."""
    end, far = socket.socketpair()
    with far:
        sock = UpgradedSocket(
            end, ClientSide("ws://localhost", 0, os.urandom), lambda: 0
        )
        holds, done = threading.Event(), threading.Event()

        def write() -> None:
            with sock._lock:
                holds.set()
                done.wait()

        thread = threading.Thread(target=write)
        thread.start()
        holds.wait()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # there are threads
            child = os.fork()
        if child == 0:
            sock.close()
            os._exit(0)
        done.set()
        thread.join()
        ended: list[int] = []

        def has_ended() -> bool:
            pid, status = os.waitpid(child, os.WNOHANG)
            ended.append(status)
            return pid == child

        try:
            eventually(has_ended, "the child ends")
        except AssertionError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        assert ended[-1] == 0
        sock.close()
