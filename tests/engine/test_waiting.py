"""Waiting for one socket."""

from __future__ import annotations

import importlib.util
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hisock.engine import waiting
from hisock.engine.dial import dial, listen_at

Sockets = tuple[socket.socket, socket.socket]


def _without_poll(monkeypatch: pytest.MonkeyPatch, platform: str) -> Any:
    """``Waiter`` of a system that has no ``select.poll``."""
    monkeypatch.delattr(select, "poll", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    spec = importlib.util.spec_from_file_location("waiting_without", waiting.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.undo()
    return module.Waiter


@pytest.fixture(params=["poll", "select", "select in slices"])
def waiter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``Waiter``, as each system has it."""
    if request.param == "poll":
        if not hasattr(select, "poll"):
            pytest.skip("this system has no poll")
        return waiting.Waiter
    sliced = request.param.endswith("slices")
    return _without_poll(monkeypatch, "win32" if sliced else sys.platform)


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Two connected sockets."""
    with listen_at(("127.0.0.1", 0)) as listener:
        one = dial(listener.getsockname())
        listener.setblocking(True)
        other, _ = listener.accept()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


def fill(sock: socket.socket) -> None:
    """Write until there is no room."""
    try:
        while True:
            sock.send(b"x" * 65536)
    except BlockingIOError:
        pass


def drain(sock: socket.socket) -> None:
    """Read until nothing more comes."""
    waits = waiting.Waiter(sock)
    while waits.wait(0.05, writing=False):
        sock.recv(1 << 20)


def test_something_to_read(waiter: Any, sockets: Sockets) -> None:
    """Ready as soon as something came; what is there already counts."""
    one, other = sockets
    waits = waiter(one)
    other.send(b"x")

    assert waits.wait(5, writing=False)
    assert waits.wait(None, writing=False)
    assert waits.wait(0, writing=False)
    assert one.recv(1) == b"x"
    assert not waits.wait(0, writing=False)


def test_something_that_comes_meanwhile(waiter: Any, sockets: Sockets) -> None:
    """Ready when something comes, long before the time is over."""
    one, other = sockets
    sender = threading.Timer(0.02, other.send, (b"x",))
    sender.start()
    began = time.monotonic()

    assert waiter(one).wait(30, writing=False)

    assert time.monotonic() - began < 10
    sender.join()


def test_waiting_for_ever_ends_too(waiter: Any, sockets: Sockets) -> None:
    """Without a time-out it waits until something comes."""
    one, other = sockets
    sender = threading.Timer(0.3, other.send, (b"x",))
    sender.start()

    assert waiter(one).wait(None, writing=False)

    sender.join()


@pytest.mark.parametrize("timeout", [0, 0.0005, 0.05])
def test_nothing_comes(waiter: Any, sockets: Sockets, timeout: float) -> None:
    """Nothing in time is told as that, and not before its time."""
    one, _ = sockets
    began = time.monotonic()

    assert not waiter(one).wait(timeout, writing=False)

    assert timeout <= time.monotonic() - began < timeout + 5


def test_room_to_write(waiter: Any, sockets: Sockets) -> None:
    """Ready while there is room; not when there is none; again when there is."""
    one, other = sockets
    waits = waiter(one)
    assert waits.wait(5, writing=True)

    fill(one)
    assert not waits.wait(0.01, writing=True)

    drain(other)
    assert waits.wait(5, writing=True)
    assert not waits.wait(0, writing=False)


def test_reading_counts_while_writing(waiter: Any, sockets: Sockets) -> None:
    """Who waits for room hears of what came, too."""
    one, other = sockets
    fill(one)
    other.send(b"x")

    assert waiter(one).wait(5, writing=True)


def test_the_end_counts_as_ready(waiter: Any, sockets: Sockets) -> None:
    """A peer that is gone makes ready: the next read tells."""
    one, other = sockets
    other.close()

    assert waiter(one).wait(5, writing=False)
    assert one.recv(1) == b""


@pytest.mark.parametrize("used", [False, True])
def test_a_closed_socket_counts_as_ready(
    waiter: Any, sockets: Sockets, used: bool
) -> None:
    """A socket that was closed makes ready: the next call tells."""
    one, _ = sockets
    waits = waiter(one)
    if used:
        waits.wait(0, writing=False)
    one.close()

    assert waits.wait(5, writing=False)
    assert waits.wait(5, writing=True)


def test_waiting_for_room_only(sockets: Sockets) -> None:
    """``wait_for_room`` ends when there is room, after its time, or at the end."""
    one, other = sockets
    fill(one)
    other.send(b"x")
    began = time.monotonic()
    waiting.wait_for_room(one, 0.03)
    assert time.monotonic() - began >= 0.03

    drain(other)
    began = time.monotonic()
    waiting.wait_for_room(one, 5)
    one.close()
    waiting.wait_for_room(one, 5)
    assert time.monotonic() - began < 2


def test_a_thousand_descriptors_are_no_limit(sockets: Sockets) -> None:
    """A socket with a number beyond 1,023 is waited for like any other (F17)."""
    resource = pytest.importorskip("resource")
    fcntl = pytest.importorskip("fcntl")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("this system gives no 2,048 descriptors")
    one, other = sockets
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    try:
        number = fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, 1500)
        with socket.socket(fileno=number) as high:
            other.send(b"x")
            assert high.fileno() >= 1500
            assert waiting.Waiter(high).wait(5, writing=False)
            waiting.wait_for_room(high, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
