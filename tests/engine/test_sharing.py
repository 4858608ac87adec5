"""One link that several threads use: who reads for whom, and whose answer is whose."""

from __future__ import annotations

import contextlib
import socket
import threading
from functools import partial

import pytest

from hisock import connect, start_threaded_server
from hisock.errors import ClientDisconnected, RequestTimeout, UnknownClient

from .packed import MESSAGE, welcomed
from .test_blocking import HOST, PATIENCE, Task, eventually, served, updated

EACH = 200


def _answer(name: bytes) -> bytes:
    """What a server says of a client."""
    return b'{"ip": ["127.0.0.1", 1], "name": "%b", "group": null}' % name


# --- messages without a handler --------------------------------------------------


def test_who_waits_gets_what_stands_behind_a_running_handler() -> None:
    """A thread in ``recv_raw`` gets a message that came in one batch with one whose
    handler still runs in another thread."""
    with served(blocking=True) as (client, server):
        runs, may_end = threading.Event(), threading.Event()

        def slow(message: bytes) -> None:
            runs.set()
            assert may_end.wait(PATIENCE)

        client.on("slow")(slow)
        server.send(b"slow x", b"for you")
        updating = Task(client.update)
        assert runs.wait(PATIENCE)
        receiving = Task(client.recv_raw)
        receiving.settle()
        may_end.set()
        updating.result()
        try:
            assert receiving.result(1.5) == b"for you"
        finally:
            server.sock.close()


def test_who_looks_in_vain_while_another_has_read() -> None:
    """Who notes the news before what another thread has read is in the inbox looks
    again, and does not wait for more."""
    with served(blocking=True) as (client, server):
        pump, lock = client._engine.pump, client._engine.lock
        receiving = Task(client.recv_raw)
        with lock.reading:
            server.send(b"one", b"two")
            eventually(lambda: pump._received, "what was read")
            receiving.settle()
            seen = pump.news
        assert receiving.result() == b"one"

        assert pump.news != seen
        assert client.recv_raw() == b"two"


def test_update_writes_although_another_thread_reads() -> None:
    """A non-blocking ``update`` writes what was left over while another thread waits
    in ``recv_raw`` for the answer to it."""
    with served(buffer=4096) as (client, server):
        receiving = Task(client.recv_raw)
        receiving.settle()
        client.send("big", bytes(12_000_000))
        reading = Task(server.take)
        try:
            updated(client, lambda: reading.ends(0), "all is written")
            server.send(b"thank you")
            assert receiving.result() == b"thank you"
        finally:
            server.sock.close()


@pytest.mark.parametrize("ends", ["with a reset", "in order"])
def test_a_send_that_fails_overtakes_nobody_who_reads(ends: str) -> None:
    """One thread has read a message and is about to look at it, while another's send
    fails and hears out what came behind that: all comes in order, none twice."""
    with welcomed(reconnect=False) as (client, server):
        got: list[int] = []
        client.on("n")(lambda n: got.append(n))

        def turn() -> None:
            while True:
                client.update()

        turning = Task(turn)
        turning.settle()
        engine = client._engine
        server.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with engine.lock.reading:  # whoever has read waits behind us
            server.put([MESSAGE, "n", 1])
            eventually(lambda: engine.pump._received, "the first is read")
            server.put([MESSAGE, "n", 2], [MESSAGE, "n", 3])
            if ends == "in order":
                server.sock.close()
            else:
                server.reset()
            with contextlib.suppress(ClientDisconnected):
                for _ in range(100):
                    client.send("it", b"x")
        with pytest.raises(ClientDisconnected):
            turning.result()
        assert got == [1, 2, 3]


# --- questions -------------------------------------------------------------------


@pytest.mark.usefixtures("restless")
def test_two_threads_that_ask_get_their_own_answers() -> None:
    """Two threads ask one client at once: each hears of whom it asked for."""
    with (
        start_threaded_server((HOST, 0)) as server,
        connect(server.addr, "ann"),
        connect(server.addr, "bob"),
        connect(server.addr) as client,
    ):
        eventually(lambda: len(server) == 3, "all are here")

        def ask(name: str) -> list[str]:
            return [client.get_client(name)["name"] for _ in range(EACH)]

        asking = {name: Task(partial(ask, name)) for name in ("ann", "bob")}
        for name, task in asking.items():
            assert task.result() == [name] * EACH


def test_an_answer_is_no_message_for_another_thread() -> None:
    """A thread in ``recv_raw`` gets the message meant for it and no answer to a
    question of another thread, whichever of them reads it."""
    with served(blocking=True) as (client, server):
        receiving = Task(client.recv_raw)
        receiving.settle()
        asking = Task(lambda: client.get_client("ann"))
        assert server.take() == b"$GETCLT$ ann"
        server.send(_answer(b"ann"))
        try:
            assert asking.result(1.5)["name"] == "ann"
            server.send(b"for you")
            assert receiving.result(1.5) == b"for you"
        finally:
            server.sock.close()


def test_a_late_answer_does_not_answer_the_next_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer that comes after its question was given up is dropped: neither the
    next question nor ``recv_raw`` gets it."""
    monkeypatch.setattr("hisock.engine.questions._ANSWER", 0.05)
    with served(blocking=True) as (client, server):
        with pytest.raises(RequestTimeout):
            client.get_client("ann")
        assert server.take() == b"$GETCLT$ ann"

        monkeypatch.setattr("hisock.engine.questions._ANSWER", 1.0)
        asking = Task(lambda: client.get_client("bob"))
        assert server.take() == b"$GETCLT$ bob"
        server.send(_answer(b"ann"), _answer(b"bob"), b"for anybody")
        assert asking.result()["name"] == "bob"
        assert client.recv_raw() == b"for anybody"


def test_a_late_refusal_does_not_answer_the_next_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same for an answer that says that there is nobody."""
    monkeypatch.setattr("hisock.engine.questions._ANSWER", 0.05)
    nobody = b'{"traceback": "$NOEXIST$"}'
    with served(blocking=True) as (client, server):
        with pytest.raises(RequestTimeout):
            client.get_client("nobody")
        server.take()

        monkeypatch.setattr("hisock.engine.questions._ANSWER", 1.0)
        asking = Task(lambda: client.get_client("bob"))
        server.take()
        server.send(nobody, _answer(b"bob"))
        with contextlib.suppress(UnknownClient):
            assert asking.result()["name"] == "bob"
            return
        pytest.fail("the late answer was taken for that of the next question")
