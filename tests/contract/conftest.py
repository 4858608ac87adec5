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
from .cutting import CutWay
from .ways import Way

#: Files whose tests cut, wait, or shake hands, and so take long: of each test this many
#: of its ways run on every commit, spread over all of them, and all with
#: ``HISOCK_CONTRACT=full``.
SAMPLED = {
    "test_sessions.py": 4,
    "test_lost_sessions.py": 4,
    "test_session_tokens.py": 4,
    "test_slow.py": 4,
    "test_tls.py": 4,
    "test_authentication.py": 6,
    "test_permissions.py": 6,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here ten seconds, and choose what of the long ones runs."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here:
            item.add_marker(pytest.mark.timeout(10))
    if os.environ.get("HISOCK_CONTRACT") != "full":
        items[:] = _sampled(items, here)


def _sampled(items: list[pytest.Item], here: Path) -> list[pytest.Item]:
    """Of a test that runs in many ways some, spread evenly; of the others all."""
    ways: dict[tuple[Path, str], list[pytest.Item]] = {}
    for item in items:
        name = getattr(item, "originalname", item.name)
        ways.setdefault((item.path, name), []).append(item)
    left_out: set[pytest.Item] = set()
    for (path, _), found in ways.items():
        most = SAMPLED.get(path.name, 0) if path.parent == here else 0
        if most and len(found) > most:
            step = len(found) / most
            kept = [found[int((n + 0.5) * step)] for n in range(most)]
            # A loop of its own kind, and not of Python's: what only it does is missed
            # by all others.
            strange = [item for item in found if _is_on_uvloop(item)]
            if strange and not any(_is_on_uvloop(item) for item in kept):
                kept[-1] = strange[len(strange) // 2]
            left_out.update(set(found) - set(kept))
    return [item for item in items if item not in left_out]


def _is_on_uvloop(item: pytest.Item) -> bool:
    """Whether the client of a meeting runs on uvloop."""
    spec = getattr(item, "callspec", None)
    meetings = () if spec is None else spec.params.values()
    return any(
        isinstance(kind := meeting[1], Kind) and kind.waiting == "uvloop"
        for meeting in meetings
        if isinstance(meeting, tuple) and len(meeting) == 3
    )


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a live link, thread or socket of ours."""
    engines = set(threads.in_this_process())
    running = set(threading.enumerate())
    descriptors = _descriptors()
    yield
    assert not [e for e in set(threads.in_this_process()) - engines if not e.is_closed]
    assert not [
        s for e in set(threads.in_this_process()) - engines for s in _open_sockets(e)
    ]
    eventually(lambda: set(threading.enumerate()) <= running)
    assert _descriptors() <= descriptors


def _open_sockets(engine: Any) -> list[Any]:
    """The sockets that an engine still holds."""
    if isinstance(engine, ClientEngine):
        sockets = [engine.link.sock]
    else:
        sockets = [engine.pump._listener, *(link.sock for link in engine.pump.links)]
    return [sock for sock in sockets if sock is not None and sock.fileno() >= 0]


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


def _meetings(
    kinds: tuple[Kind, ...], wires: tuple[str, ...]
) -> list[tuple[Kind, Kind, str]]:
    """Which server meets which client on which wire.

    Every face meets every face, and every kind each wire in both roles: any two choices
    meet, not all three. ``HISOCK_CONTRACT=full`` runs the full product.
    """
    everything = list(product(kinds, kinds, wires))
    if os.environ.get("HISOCK_CONTRACT") == "full":
        return everything
    chosen: list[tuple[Kind, Kind, str]] = []
    missing = {pair for one in everything for pair in _pairs(*one)}
    while missing:
        best = max(everything, key=lambda one: len(missing & _pairs(*one)))
        chosen.append(best)
        missing -= _pairs(*best)
    return chosen + (_websockets(kinds) if "compact" in wires else [])


def _websockets(kinds: tuple[Kind, ...]) -> list[tuple[Kind, Kind, str]]:
    """Meetings whose clients come as WebSocket: every face once on each side."""
    servers = {kind.face: kind for kind in reversed(kinds)}
    clients = {kind.face: kind for kind in kinds}
    faces = list(servers)
    turned = faces[1:] + faces[:1]
    return [
        (servers[one], clients[other], "websocket")
        for one, other in zip(faces, turned, strict=True)
    ]


def _pairs(server: Kind, client: Kind, wire: str) -> set[tuple[object, ...]]:
    """The pairs of choices that one meeting has."""
    return {
        ("faces", server.face, client.face),
        ("server", server, wire),
        ("client", client, wire),
    }


def _fixture_for(
    kinds: tuple[Kind, ...], wires: tuple[str, ...] = tuple(RAW_PEERS)
) -> Any:
    """A fixture that makes a ``Net`` of each meeting."""
    meetings = _meetings(kinds, wires)

    @pytest.fixture(params=meetings, ids=["-".join(map(str, m)) for m in meetings])
    def net(request: pytest.FixtureRequest) -> Iterator[Net]:
        server, client, wire = request.param
        made = Net(wire, server, client)
        yield made
        made.close()

    return net


def _of(*faces: str) -> tuple[Kind, ...]:
    return tuple(kind for kind in KINDS if kind.face in faces)


#: Servers of every face with clients of every face.
net = _fixture_for(KINDS)
#: The same without asyncio: for what is said of ``run`` and ``update``.
turned = _fixture_for(_of("plain", "threaded"))
#: All faces on the wire of 1.1, for what is refused there.
classic = _fixture_for(KINDS, ("classic",))
#: All faces on our own wire, for what only it can.
compact = _fixture_for(KINDS, ("compact",))
#: The same without asyncio.
compact_turned = _fixture_for(_of("plain", "threaded"), ("compact",))


@pytest.fixture(params=["up", "down"])
def way(request: pytest.FixtureRequest, net: Net) -> Way:
    """A client that speaks to a server, and the other way round."""
    return Way(net, up=request.param == "up")


@pytest.fixture(params=["up", "down"])
def asking(request: pytest.FixtureRequest, compact: Net) -> Way:
    """The same on our own wire, where one side can ask the other."""
    return Way(compact, up=request.param == "up")


@pytest.fixture(params=["up", "down"])
def cut(request: pytest.FixtureRequest, compact: Net) -> CutWay:
    """The same, with a network between them that can be cut."""
    return CutWay(compact, up=request.param == "up")


@pytest.fixture
def apart(compact: Net) -> CutWay:
    """A client and its server with such a network, where both have their say."""
    return CutWay(compact, up=True)


@pytest.fixture(params=["blocking", "nonblocking"])
def idle(request: pytest.FixtureRequest) -> Iterator[CutWay]:
    """A plain client with such a network that nobody turns, of a server in a thread."""
    kind = Kind("plain", request.param)
    made = Net("compact", Kind("threaded", "blocking"), kind)
    yield CutWay(made, up=True)
    made.close()


@pytest.fixture(params=sorted(RAW_PEERS))
def wire(request: pytest.FixtureRequest) -> str:
    """The wire that both sides speak."""
    return str(request.param)


@pytest.fixture(params=["blocking", "nonblocking"])
def hand(request: pytest.FixtureRequest, wire: str) -> Iterator[Net]:
    """Plain servers and clients, for tests that turn them step by step."""
    kind = Kind("plain", request.param)
    made = Net(wire, kind, kind)
    yield made
    made.close()


@pytest.fixture(params=["blocking", "nonblocking"])
def threaded(request: pytest.FixtureRequest, wire: str) -> Iterator[Net]:
    """Threaded servers and clients alone."""
    kind = Kind("threaded", request.param)
    made = Net(wire, kind, kind)
    yield made
    made.close()
