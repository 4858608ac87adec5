"""Ends of a connection against a client of ours that comes back by itself.

A raw listening socket plays a server of 1.1, which knows no sessions.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from hisock import ClientDisconnected, connect
from hisock.client import HiSockClient
from hisock.errors import SessionLost

from .compact import Compact, packed
from .raw import (
    CLIENT_HELLO,
    PATIENCE,
    PROBE,
    SERVER_GOODBYE,
    Listener,
    Raw,
    eventually,
    frame,
)

pytestmark = pytest.mark.timeout(20)


class Scene:
    """A client that nobody turns but ``turn_until``, and who plays its server."""

    def __init__(self) -> None:
        self.listener = Listener()
        self.servers: list[Raw] = []
        self.told: list[Any] = []
        self.client: HiSockClient = connect(self.listener.address, "us", blocking=False)
        self.client.on_drop(lambda: self.told.append("drop"))
        self.client.on_resume(lambda: self.told.append("resume"))
        self.client.on_session_lost(self.told.append)
        self.client.on("ping")(self.told.append)
        self.client.on("force_disconnect")(lambda: self.told.append("end"))

    def accept(self) -> Raw:
        """The next time that the client calls, and is let in."""
        self.turn_until(self.has_caller)
        server = self.listener.accept()
        self.servers.append(server)
        server.take_hello("us", session=True)
        server.send(frame(b"$NOTLS$"))
        self.turn_until(lambda: self.client.wire == "classic")
        return server

    def has_caller(self) -> bool:
        """Whether the client has called, and was not accepted yet."""
        return bool(select.select([self.listener.sock], [], [], 0)[0])

    def turn_until(self, condition: Any) -> None:
        """Turn the client until something holds, or it is over."""

        def holds() -> object:
            with contextlib.suppress(ClientDisconnected):
                self.client.update()
            return condition()

        eventually(holds, "what the client should see")


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Both, and nothing is left of them."""
    made = Scene()
    with contextlib.ExitStack() as stack:
        stack.callback(made.listener.sock.close)
        stack.enter_context(made.client)
        yield made
        # So that the client need not wait until it believes in the end.
        for server in made.servers:
            server.sock.close()


def end(server: Raw, how: str) -> None:
    """End a connection without a goodbye."""
    match how:
        case "closed":
            server.sock.close()
        case "half closed":
            server.sock.shutdown(socket.SHUT_WR)
        case "reset":
            server.reset()


@pytest.mark.parametrize("how", ["closed", "half closed", "reset"])
def test_a_client_whose_server_vanished_joins_again(scene: Scene, how: str) -> None:
    """It is told of the cut, and of what that cost before anything new."""
    for count in range(3):
        server = scene.accept()
        server.send(frame(b"ping %d" % count))
        scene.turn_until(lambda: b"%d" % count in scene.told)  # noqa: B023
        if count:
            lost = scene.told[1]
            assert isinstance(lost, SessionLost)
            assert (lost.reason, lost.unacked) == ("classic", ())
            assert scene.told == ["drop", lost, b"%d" % count]
        scene.told.clear()
        scene.client.send("it", b"%d" % count)
        assert server.take_frame() == b"it %d" % count
        end(server, how)
    scene.turn_until(scene.has_caller)


def test_what_is_sent_without_a_server_waits_for_one(scene: Scene) -> None:
    """What had no place to go to before the cut was noticed is lost with it; what is
    sent while the client knows is not accepted blindly: it waits for the answer."""
    server = scene.accept()
    server.reset()
    scene.turn_until(lambda: scene.told == ["drop"])
    assert not scene.client.is_connected
    again = scene.accept()
    scene.client.send("it", b"x")
    assert again.take_frame() == b"it x"
    again.sock.close()


def test_a_goodbye_is_the_end(scene: Scene) -> None:
    """Nobody comes back whom the server sent away."""
    server = scene.accept()
    server.send(frame(SERVER_GOODBYE))
    scene.turn_until(lambda: scene.told == ["end"])
    with pytest.raises(ClientDisconnected):
        scene.client.update()
    assert not scene.has_caller()
    server.sock.close()


@pytest.mark.parametrize(
    "given", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-" * 4]
)
def test_a_server_that_speaks_nonsense_is_the_end(scene: Scene, given: bytes) -> None:
    """It would do so again; a client that came back would never stop."""
    server = scene.accept()
    server.send(given)
    scene.turn_until(lambda: scene.told == ["end"])
    with pytest.raises(ClientDisconnected):
        scene.client.update()
    assert not scene.has_caller()
    server.sock.close()


def test_a_server_that_is_gone_is_tried_again(scene: Scene) -> None:
    """As long as it takes, and no more often than makes sense."""
    server = scene.accept()
    address = scene.listener.address
    scene.listener.sock.close()
    server.reset()
    scene.turn_until(lambda: scene.told == ["drop"])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(address)
        other.listen()
        other.settimeout(PATIENCE)
        scene.listener.sock = other
        again = scene.accept()
        again.send(frame(b"ping x"))
        scene.turn_until(lambda: scene.told[-1] == b"x")
        again.sock.close()


def test_a_client_that_is_closed_while_it_tries(scene: Scene) -> None:
    """It ends at once, and calls no more."""
    server = scene.accept()
    server.reset()
    scene.turn_until(lambda: scene.told == ["drop"])
    scene.client.close()
    assert not scene.has_caller()


def test_a_session_whose_welcome_was_lost_is_not_the_old_one(scene: Scene) -> None:
    """The server wants no more of a session, the client draws another, and the link
    breaks before it hears that this was let in. It hears so when it is back; what the
    old session still owed is reported, and not said in the new one."""
    old = take_call(scene)
    welcome(old[0], old[1], resumed=False)
    scene.turn_until(lambda: scene.client.wire == "compact")
    scene.client.send("it", b"old")
    old[0].sock.close()

    refusing, asked = take_call(scene)
    assert asked["sid"] == old[1]["sid"]
    refusing.send(frame(b'$REFUSED$ {"code":"unauthorized","text":"","retry":0}'))
    scene.turn_until(scene.has_caller)
    silent, first = take_call(scene)
    assert first["sid"] != old[1]["sid"]
    silent.sock.close()  # what it answered is lost

    server, again = take_call(scene)
    assert (again["sid"], again["epoch"]) == (first["sid"], None)
    welcome(server, again, resumed=True)
    scene.turn_until(lambda: scene.told[1:])
    lost = scene.told[1]
    assert isinstance(lost, SessionLost)
    assert [(each.command, each.content) for each in lost.unacked] == [("it", b"old")]
    scene.client.send("it", b"new")
    server.take_frame()  # it has heard the welcome
    told = server.take_packed()
    while told[0] >= 32:
        told = server.take_packed()
    assert told == [1, "it", b"new"]
    server.send(packed(32, 1))  # and that is its first


def take_call(scene: Scene) -> tuple[Compact, dict[str, Any]]:
    """The next time that the client calls, and what it says of itself."""
    scene.turn_until(scene.has_caller)
    server = Compact(scene.listener.accept().sock)
    scene.servers.append(server)
    said = server.take_frame()
    assert server.take_frame() == PROBE
    return server, json.loads(said.removeprefix(CLIENT_HELLO))


def welcome(server: Compact, hello: dict[str, Any], *, resumed: bool) -> None:
    """Let it in, with the session that it asks for."""
    fields = {"proto": 2, "sid": hello["sid"], "epoch": "ab" * 8, "got": 0, "now": 0}
    fields |= {"resumed": resumed, "limits": {}, "window": 30}
    server.send(frame(b"$WELCOME$ " + json.dumps(fields).encode()))
