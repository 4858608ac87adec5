"""The fixtures of the contract: every face and wire, and nothing may be left behind."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from hisock.engine import threads
from hisock.engine.blocking import ClientEngine

from . import KINDS, RAW_PEERS, Kind, Net, eventually


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here ten seconds."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here:
            item.add_marker(pytest.mark.timeout(10))


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a live link, thread or socket of ours."""
    engines = set(threads._alive)
    running = set(threading.enumerate())
    descriptors = _descriptors()
    yield
    assert not [e for e in set(threads._alive) - engines if not e.is_closed]
    assert not [s for e in set(threads._alive) - engines for s in _open_sockets(e)]
    eventually(lambda: set(threading.enumerate()) <= running)
    assert _descriptors() <= descriptors


def _open_sockets(engine: Any) -> list[Any]:
    """The sockets that an engine still holds."""
    if isinstance(engine, ClientEngine):
        sockets = [engine.link.sock]
    else:
        sockets = [engine.pump._listener, *(link.sock for link in engine.pump.links)]
    return [sock for sock in sockets if sock.fileno() >= 0]


def _descriptors() -> set[str]:
    """The sockets of this process as the system numbers them; none where unknown."""
    if sys.platform != "linux":
        return set()
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the listing's own
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture(params=sorted(RAW_PEERS))
def wire(request: pytest.FixtureRequest) -> str:
    """The wire that both sides speak."""
    return str(request.param)


@pytest.fixture(
    params=list(product(KINDS, KINDS)), ids=lambda pair: f"{pair[0]}-{pair[1]}"
)
def net(request: pytest.FixtureRequest, wire: str) -> Iterator[Net]:
    """Servers of each kind with clients of each kind."""
    made = Net(wire, *request.param)
    yield made
    made.close()


@pytest.fixture(params=[True, False], ids=["blocking", "nonblocking"])
def hand(request: pytest.FixtureRequest, wire: str) -> Iterator[Net]:
    """Plain servers and clients, for tests that turn them step by step."""
    kind = Kind(threaded=False, blocking=request.param)
    made = Net(wire, kind, kind)
    yield made
    made.close()


@pytest.fixture(params=[True, False], ids=["blocking", "nonblocking"])
def threaded(request: pytest.FixtureRequest, wire: str) -> Iterator[Net]:
    """Threaded servers and clients alone."""
    kind = Kind(threaded=True, blocking=request.param)
    made = Net(wire, kind, kind)
    yield made
    made.close()
