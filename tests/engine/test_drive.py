"""A selector turned by hand."""

from __future__ import annotations

import asyncio
import importlib.util
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hisock.engine import drive as driving

Sockets = tuple[socket.socket, socket.socket]


def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``Drive`` of a system that has no ``select.epoll`` and waits in slices."""
    monkeypatch.delattr(select, "epoll", raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    spec = importlib.util.spec_from_file_location("drive_elsewhere", driving.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.undo()
    return module.Drive


@pytest.fixture(params=["here", "elsewhere"])
def drive(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[driving.Drive]:
    """A drive, as this system and as others have it."""
    kind = driving.Drive if request.param == "here" else _elsewhere(monkeypatch)
    made = kind()
    yield made
    made.close()


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Two connected sockets."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


def ignore(argument: object) -> None: ...


def test_a_step_without_waiting(drive: driving.Drive, sockets: Sockets) -> None:
    """What is ready is called with its argument, and nothing is waited for."""
    one, other = sockets
    calls: list[object] = []
    drive.watch(one.fileno(), calls.append, None, "one")

    drive.step(0)
    assert calls == []

    other.send(b"x")
    drive.step(0)
    assert calls == ["one"]


def test_a_spin_comes_before_the_sleep(drive: driving.Drive) -> None:
    """The thread looks for so long without sleeping, and then sleeps out the wait."""
    busy = []
    for spin in (0.0, 0.05, 5.0):
        drive.spin = spin
        began, used = time.monotonic(), time.thread_time()
        drive.step(0.1)
        busy.append(time.thread_time() - used)
        assert 0.099 <= time.monotonic() - began < 5

    # It may have to share its core with others, but it never does more.
    assert busy[0] < 0.005
    assert busy[0] < busy[1] < 0.055
    assert busy[1] < busy[2] < 0.105


def test_what_ends_a_wait_ends_a_spin(drive: driving.Drive, sockets: Sockets) -> None:
    """What comes, the alarm, and ``wake``."""
    one, other = sockets
    calls: list[object] = []
    drive.spin = 60.0
    drive.watch(one.fileno(), calls.append, None, "one")

    sending = threading.Timer(0.01, other.send, (b"x",))
    sending.start()
    drive.step(None)
    sending.join()
    assert calls == ["one"]

    one.recv(1)
    waking = threading.Timer(0.01, drive.wake)
    waking.start()
    drive.step(None)
    waking.join()
    drive.alarm = time.monotonic() + 0.01
    drive.step(None)
    assert calls == ["one"]


def test_a_step_with_a_time_out(drive: driving.Drive) -> None:
    """A step ends after its time, when nothing happens."""
    began = time.monotonic()

    drive.step(0.03)

    assert 0.029 <= time.monotonic() - began < 5


def test_something_comes_meanwhile(drive: driving.Drive, sockets: Sockets) -> None:
    """A step without a time-out ends when a socket has something."""
    one, other = sockets
    calls: list[object] = []
    drive.watch(one.fileno(), calls.append, None, "one")
    sender = threading.Timer(0.02, other.send, (b"x",))
    sender.start()

    while not calls:
        drive.step(None)

    assert calls == ["one"]
    sender.join()


def test_room_to_write_is_watched(drive: driving.Drive, sockets: Sockets) -> None:
    """Room is told to who asked for it, and only to them."""
    one, other = sockets
    calls: list[object] = []
    drive.watch(one.fileno(), ignore, calls.append, "room")
    drive.watch(other.fileno(), calls.append, None, "news")

    drive.step(0)

    assert calls == ["room"]


def test_news_and_room_at_once(drive: driving.Drive, sockets: Sockets) -> None:
    """A socket with both gets both calls: first it writes, then it reads."""
    one, other = sockets
    other.send(b"x")
    calls: list[str] = []
    drive.watch(
        one.fileno(),
        lambda name: calls.append("read"),
        lambda name: calls.append("write"),
    )

    drive.step(5)

    assert calls == ["write", "read"]


def test_a_later_watch_takes_the_place(drive: driving.Drive, sockets: Sockets) -> None:
    """Who watches a socket anew is called in place of who watched before."""
    one, other = sockets
    other.send(b"x")
    calls: list[object] = []
    drive.watch(one.fileno(), calls.append, calls.append, "before")
    drive.watch(one.fileno(), calls.append, None, "after")

    drive.step(5)

    assert calls == ["after"]


def test_what_is_forgotten_is_not_called(
    drive: driving.Drive, sockets: Sockets
) -> None:
    """A forgotten socket is called no more; forgetting twice does no harm."""
    one, other = sockets
    other.send(b"x")
    calls: list[object] = []
    drive.watch(one.fileno(), calls.append, None, "one")
    drive.forget(one.fileno(), "one")
    drive.forget(one.fileno(), "one")

    drive.step(0)

    assert calls == []


def test_who_is_forgotten_in_the_same_step(
    drive: driving.Drive, sockets: Sockets
) -> None:
    """Of two ready sockets one call may forget the other: that one is not called."""
    calls: list[object] = []

    def forget_other(name: Any) -> None:
        calls.append(name)
        drive.forget(sockets[1 - name].fileno(), 1 - name)

    for number, sock in enumerate(sockets):
        sockets[1 - number].send(b"x")
        drive.watch(sock.fileno(), forget_other, None, number)

    drive.step(5)

    assert len(calls) == 1


def test_an_end_counts_as_news_and_room(drive: driving.Drive, sockets: Sockets) -> None:
    """The end of the other side is told to who reads."""
    one, other = sockets
    calls: list[object] = []
    drive.watch(one.fileno(), calls.append, None, "one")
    other.close()

    drive.step(5)

    assert calls == ["one"]


def test_another_thread_ends_the_wait(drive: driving.Drive) -> None:
    """``wake`` from any thread ends a wait."""
    waker = threading.Timer(0.02, drive.wake)
    waker.start()
    began = time.monotonic()

    drive.step(30)

    assert time.monotonic() - began < 10
    waker.join()


def test_a_wake_before_the_wait_counts_once(drive: driving.Drive) -> None:
    """A wake just before the wait is not lost; and many are one."""
    for _ in range(100_000):
        drive.wake()
    for _ in range(200):
        drive.step(0)
    drive.wake()
    began = time.monotonic()
    drive.step(30)
    assert time.monotonic() - began < 10

    drive.step(0.03)
    assert time.monotonic() - began >= 0.029


def test_a_closed_drive_may_be_woken(drive: driving.Drive) -> None:
    """A wake that comes after the end does nothing, and so does a second end."""
    drive.close()
    drive.wake()
    drive.close()


@pytest.mark.parametrize("timeout", [None, 30])
def test_an_alarm_ends_the_wait(drive: driving.Drive, timeout: float | None) -> None:
    """The alarm ends a wait at its time, or by small slices just about then."""
    when = drive.alarm = time.monotonic() + 0.03

    while time.monotonic() < when:
        drive.step(timeout)

    assert time.monotonic() < when + 10


def test_an_alarm_of_the_past(drive: driving.Drive) -> None:
    """What is overdue does not wait; nor does an alarm make a poll wait."""
    drive.alarm = time.monotonic() - 1
    began = time.monotonic()
    drive.step(None)
    drive.step(30)
    drive.alarm = time.monotonic() + 30
    drive.step(0)

    assert time.monotonic() - began < 10


def test_a_time_out_before_the_alarm(drive: driving.Drive) -> None:
    """Of alarm and time-out the nearer one counts."""
    drive.alarm = time.monotonic() + 30
    began = time.monotonic()

    drive.step(0.02)

    assert time.monotonic() - began < 10


def test_an_exception_leaves_the_drive_usable(
    drive: driving.Drive, sockets: Sockets
) -> None:
    """Ctrl-C in a call comes out of the step; the next step goes on."""
    one, other = sockets
    other.send(b"x")

    def interrupt(argument: object) -> None:
        raise KeyboardInterrupt

    drive.watch(one.fileno(), interrupt, None)
    with pytest.raises(KeyboardInterrupt):
        drive.step(5)
    calls: list[object] = []
    drive.watch(one.fileno(), calls.append, None, "after")
    drive.step(5)

    assert calls == ["after"]


def test_more_sockets_than_one_step_tells(drive: driving.Drive) -> None:
    """Hundreds of ready sockets are all called, each once a step at most."""
    pairs = [socket.socketpair() for _ in range(200)]
    calls: list[object] = []
    try:
        for number, (one, other) in enumerate(pairs):
            other.send(b"x")
            drive.watch(one.fileno(), calls.append, None, number)
        drive.step(5)
        assert set(range(200)) == set(calls)
        assert len(calls) == 200
    finally:
        for number, (one, other) in enumerate(pairs):
            drive.forget(one.fileno(), number)
            one.close()
            other.close()


def test_a_step_inside_a_running_loop(drive: driving.Drive, sockets: Sockets) -> None:
    """In a Jupyter cell a loop runs already; a step works there too."""
    one, other = sockets
    other.send(b"x")
    calls: list[object] = []
    drive.watch(one.fileno(), calls.append, None, "one")

    async def cell() -> None:
        drive.step(5)
        await asyncio.sleep(0)

    asyncio.run(cell())

    assert calls == ["one"]
