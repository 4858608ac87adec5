"""What somebody hostile may try on a server, and on a client.

The numbers are those of the table of threats in ``docs/faults.md``. The honest client
beside it all (``Stage``) is never harmed. Numbers of attackers are a tenth and less of
what a real one would send: what is bounded is bounded for few as for many.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import pickle
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from tests.contract.authorities import Authorities

from hisock import (
    ClientInfo,
    Credentials,
    Identity,
    Limits,
    connect,
    start_threaded_server,
    threaded_connect,
)
from hisock.errors import (
    ClientDisconnected,
    HiSockError,
    UnknownClient,
    UnknownCommand,
)

from .compact import (
    PIECES,
    PROTOCOL_ERROR,
    Compact,
    hello,
    joined,
    packed,
    served,
)
from .raw import (
    HOST,
    Listener,
    Raw,
    Stage,
    ends_within,
    eventually,
    frame,
    header,
    in_thread,
)
from .raw import hello as classic_hello

pytestmark = pytest.mark.timeout(30)

MIB = 1024 * 1024
SID = "5" * 32

_STATM = Path("/proc/self/statm")

needs_proc = pytest.mark.skipif(not _STATM.exists(), reason="needs /proc")


def resident() -> int:
    """Bytes of memory that this process really has."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def claim(token: str, following: str, sid: str = SID, **more: Any) -> dict[str, Any]:
    """What a hello says of its session."""
    return {
        **{"sid": sid, "token": token * 64, "next": following * 64, "got": 0},
        **{"epoch": None, "window": 30.0, "beats": False, **more},
    }


def entered(stage: Stage, name: str, **claim: Any) -> Compact:
    """A raw client with a session, welcomed."""
    peer = Compact.call(stage.address)
    peer.send(hello(name, **claim))
    assert peer.take_frame().startswith(b"$WELCOME$ ")
    peer.send(frame(b"$COMPACT$"))
    return peer


def answer(peer: Compact) -> list[Any]:
    """The next frame that is no acknowledgement."""
    while (said := peer.take_packed())[0] == 32:
        pass
    return said


# --- before the hello --------------------------------------------------------------


class Dribblers:
    """Connections that say a byte now and then, until they are closed."""

    def __init__(self, peers: list[Raw], data: bytes) -> None:
        self._peers = peers
        self._data = data
        self._over = threading.Event()
        self._thread = in_thread(self._run)

    def _run(self) -> None:
        for at in range(len(self._data)):
            for peer in self._peers:
                peer.throw(self._data[at : at + 1])
            if self._over.wait(0.05):
                return

    def stop(self) -> None:
        """Say no more."""
        self._over.set()
        assert ends_within(self._thread, 5.0)


def all_ended(peers: list[Raw], within: float) -> bool:
    """Whether the other side ends all of these in time."""
    end = time.monotonic() + within
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            selector.register(peer.sock, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < end:
            for key, _ in selector.select(0.1):
                assert isinstance(key.fileobj, type(peers[0].sock))
                with contextlib.suppress(ConnectionResetError):
                    assert key.fileobj.recv(1) == b""
                selector.unregister(key.fileobj)
        return not selector.get_map()


def test_t01_a_crowd_keeps_nobody_out() -> None:
    """While hundreds are silent and dozens dribble, honest clients join; and all of
    the crowd is gone when the time for a hello is over."""
    # 64 and 1 s in place of 256 and 5 s; the dribblers' hello would take over 3 s.
    limits = Limits(unfinished=64, handshake=1.0)
    with Stage(limits=limits) as stage, contextlib.ExitStack() as stack:
        began = time.monotonic()
        silent = [stack.enter_context(stage.stranger()) for _ in range(150)]
        slow = [stack.enter_context(stage.stranger()) for _ in range(20)]
        dribblers = Dribblers(slow, frame(classic_hello("slow")))
        stack.callback(dribblers.stop)
        for number in range(5):
            asked = time.monotonic()
            with connect(stage.address, f"late {number}") as late:
                late.send("echo", b"x")
                assert late.recv_raw() == b"x"
            assert time.monotonic() - asked < 1.0
        assert all_ended([*silent, *slow], within=began + 3.0 - time.monotonic())
        eventually(lambda: len(stage.left) == 5, "the honest leave, too")
        assert "slow" not in stage.joined


#: What a browser may be made to send, and what else speaks lines.
VERBS = ("POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "PRI")


def smuggled(verb: bytes, hidden: bytes) -> dict[str, bytes]:
    """Requests with bytes of ours in every part of them."""
    start = b"%s / HTTP/1.1\r\nHost: x\r\n" % verb
    length = b"Content-Length: %d\r\n" % len(hidden)
    return {
        "path": b"%s /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (verb, hidden),
        "line": b"%s %s" % (verb, hidden),
        "header": start + b"X: " + hidden + b"\r\n\r\n",
        "body": start + length + b"\r\n" + hidden,
        "next request": start + b"\r\n" + hidden,
    }


@pytest.mark.parametrize("verb", VERBS)
def test_t02_nothing_is_found_inside_http(verb: str) -> None:
    """Whatever the verb but GET, and what stands before it: a hello and a command
    further behind are never read, in one write or when they come alone."""
    hidden = frame(classic_hello("form")) + frame(b"ping x")
    with Stage() as stage:
        stage.record("ping", "message", "*")
        for before in (b"", b"\r\n", b"\n", b" ", b"\t"):
            for data in smuggled(verb.encode(), hidden).values():
                with stage.stranger() as peer:
                    peer.throw(before + data)
                    assert peer.take_all() == b""
            with stage.stranger() as peer:
                peer.throw(before + verb.encode())
                assert peer.take_all() == b""
                peer.throw(hidden)
        assert stage.joined == ["honest"]
        assert stage.ran == []


@pytest.mark.parametrize("before", [b"\r\n", b"\n", b" ", b"\t", b"\x00", b"\xef\xbb"])
def test_t02_nothing_may_stand_before_a_hello(before: bytes) -> None:
    """Not even what others overlook."""
    with Stage() as stage, stage.stranger() as peer:
        stage.record("ping", "message")
        peer.throw(before + frame(classic_hello("form")) + frame(b"ping x"))
        assert peer.take_all() == b""
        assert stage.joined == ["honest"]
        assert stage.ran == []


def _guarded(stage: Stage) -> None:
    stage.server.authenticate(lambda credentials: credentials.token == "good")


#: The least that one of our clients can say of itself.
SHORT = b'$CLTHELLO$ {"name":null,"group":null,"proto":%d}'


def _hellos() -> dict[str, bytes]:
    compact = hello(None)
    return {
        "nothing": b"",
        "a digit": b"5",
        "garbage": b"?",
        "HTTP": b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        "TLS": bytes.fromhex("16030100f1010000ed0303") + bytes(230),
        "a broken hello": frame(b"$CLTHELLO$ {}"),
        "a hello of 1.1": frame(classic_hello(None)),
        "two, and more": 2 * frame(classic_hello(None)) + frame(b"$GETCLT$ honest"),
        "a hello of ours": compact,
        "an old version": hello(None, 1),
        "no version": hello(None, -1),
        "a short old version": frame(SHORT % 1, 2),
        "a short hello of ours": frame(SHORT % 2, 2),
        "a guess": compact + frame(b"$COMPACT$") + packed(38, "guess"),
        "no proof": compact + frame(b"$COMPACT$") + packed(2, 1, "$GETCLT$", "honest"),
        "a flood": compact + frame(b"$GETCLT$ honest") * 50 + frame(b"$DH_NUMS$") * 50,
    }


@pytest.mark.parametrize("given", list(_hellos().values()), ids=list(_hellos()))
def test_t21_a_stranger_hears_less_than_it_says(given: bytes) -> None:
    """Before somebody is let in there leave no more than 64 bytes over what came, so
    that nobody makes a small question large with us."""
    with Stage(limits=Limits(handshake=0.3)) as stage:
        _guarded(stage)
        with stage.stranger() as peer:
            peer.throw(given)
            heard = peer.take_all()
        assert len(heard) <= len(given) + 64, heard
        assert stage.joined == ["honest"]


# --- what is read ------------------------------------------------------------------

DEEP = "[" * 100_000
HOSTILE_JSON = {
    "deep": DEEP,
    "deep, and closed": DEEP + "]" * 100_000,
    "deep maps": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "a number of 5,000 digits": "1" * 5000,
    "not a number": "NaN",
    "infinite": "-Infinity",
    "more than infinite": "1e999",
    "a key twice": '{"a": 1, "a": 2}',
    "half a letter": '"\\ud800"',
}


@pytest.mark.parametrize("value", list(HOSTILE_JSON.values()), ids=list(HOSTILE_JSON))
def test_t13_hostile_json_in_a_hello(value: str) -> None:
    """As the name, or beside it: that one connection is closed, unanswered."""
    limits = Limits(hello=MIB)  # or they would be refused for their size
    with Stage(limits=limits) as stage:
        body = b'$CLTHELLO$ {"name": %s, "group": null}'
        with stage.stranger() as peer:
            peer.throw(frame(body % value.encode()))
            assert peer.take_all() == b""
        assert stage.joined == ["honest"]


@pytest.mark.parametrize("value", list(HOSTILE_JSON.values()), ids=list(HOSTILE_JSON))
def test_t13_hostile_json_in_a_message(value: str) -> None:
    """Where a handler wants something of JSON: it is called with that or not at all,
    and the one after it is served."""
    got: list[Any] = []
    with Stage() as stage:

        @stage.server.on("json")
        def take(client: ClientInfo, content: list[dict[str, int]]) -> None:
            got.append(content)

        with stage.peer() as peer:
            peer.send(frame(b"json [%s]" % value.encode()))
            peer.send(frame(b'json [{"a": 7}]') + frame(b"echo still here"))
            assert peer.take_frame() == b"still here"
        assert got[-1] == [{"a": 7}]
        assert all(isinstance(one, dict) for one in got[0])


def _cost_of(stage: Stage, ids: Iterator[int], count: int) -> float:
    """Seconds of processor that so many calls take, beside a thousand open ones."""
    with joined(stage, "caller") as peer:
        for _ in range(1000):
            peer.send(packed(2, next(ids), "hang", 9, 1))
        for _ in range(1000):
            assert peer.take_packed()[0] == 5
        calls = b"".join(packed(2, next(ids), "add", 1) for _ in range(count))
        began = time.process_time()
        talking = in_thread(lambda: peer.send(calls))
        for _ in range(count):
            assert peer.take_packed()[0] == 3
        assert ends_within(talking, 5.0)
        return time.process_time() - began


def test_t14_ids_that_collide_cost_no_more() -> None:
    """Ids of calls that are alike in the bits a dictionary looks at first take no
    longer than 1, 3, 5; those that a 64-bit hash folds together are too large."""
    count = 3000
    with Stage(limits=Limits(requests=5000)) as stage:
        stage.server.on("add")(lambda client, number: number + 1)

        @stage.server.on("hang")
        def hang(client: ClientInfo, upto: int) -> Iterator[int]:
            yield from range(upto)

        plain = min(_cost_of(stage, iter(range(1, 10**6, 2)), count) for _ in "123")
        alike = min(_cost_of(stage, iter(range(1, 2**53, 2**40)), count) for _ in "123")
        assert alike < 4 * plain
        with joined(stage) as peer:
            peer.send(packed(2, 2**61 - 1, "add", 1))
            peer.expect_bye(PROTOCOL_ERROR)


class Exploit:
    """What runs code when it is unpickled."""

    ran: list[int] = []  # noqa: RUF012  # a pickle knows the class, not an instance

    def __reduce__(self) -> tuple[Any, ...]:
        return (Exploit.ran.append, (1,))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_t15_a_pickle_is_bytes(protocol: int) -> None:
    """In a hello it is none; in a message it is what came, or does not fit a hint."""
    bomb = pickle.dumps(Exploit(), protocol)
    got: list[tuple[str, Any]] = []
    with Stage() as stage:

        @stage.server.on("typed")
        def typed(client: ClientInfo, content: dict[str, int]) -> None:
            got.append(("typed", content))

        @stage.server.on("as sent")
        def as_sent(client: ClientInfo, content: bytes) -> None:
            got.append(("as sent", content))

        for data in (bomb, header(len(bomb)) + bomb, frame(b"$CLTHELLO$ " + bomb)):
            with stage.stranger() as peer:
                peer.throw(data)
                assert peer.take_all() == b""
        with stage.peer() as peer, joined(stage, "other") as other:
            peer.send(frame(b"typed " + bomb) + frame(b"as sent " + bomb))
            for command in ("typed", "as sent"):
                other.send(packed(1, command, bomb))
            eventually(lambda: len(got) == 2, "both come as they were sent")
    assert got == [("as sent", bomb)] * 2
    assert Exploit.ran == []


@pytest.mark.parametrize("event", ["join", "leave", "drop", "resume", "error"])
def test_t16_events_are_not_the_wires(event: str) -> None:
    """An event's name as a command is a command that nobody handles, sent or called,
    for any who ask over either wire."""
    told: list[object] = []
    with Stage() as stage:
        stage.server.on_drop(lambda client: told.append("drop"))
        stage.server.on_resume(lambda client: told.append("resume"))
        stage.server.on_error(told.append)
        with joined(stage) as peer, stage.peer("old") as old:
            before = list(stage.joined)
            peer.send(packed(1, event, None) + packed(2, 1, event, None))
            kind, number, code, *_ = peer.take_packed()
            assert (kind, number, code) == (4, 1, "unknown_command")
            old.send(frame(event.encode() + b" x") + frame(b"echo x"))
            assert old.take_frame() == b"x"
            assert (stage.joined, stage.left) == (before, [])
    assert {type(error) for error in told} == {UnknownCommand}


# --- sessions ----------------------------------------------------------------------


def _try_to_be_served(stage: Stage, name: str, claim: dict[str, Any]) -> bool:
    """Whether somebody with this claim is served in the end."""
    with Compact.call(stage.address) as peer:
        peer.send(hello(name, **claim))
        try:
            if not peer.take_frame().startswith(b"$WELCOME$ "):
                return False
            peer.send(frame(b"$COMPACT$") + packed(2, 3, "who", name))
            while (said := peer.take_packed())[0] != 3:
                assert said[0] in {32, 35}
            return bool(said[2] == name)
        except (AssertionError, OSError):
            return False  # it was cut: the other is served


def test_t17_of_two_with_one_token_one_wins() -> None:
    """They come at the same moment, each with a next token of its own: one is served,
    always, and the server has one client."""
    rounds = 40  # in place of 1,000
    with Stage() as stage:
        stage.server.on("who")(lambda client, name: name)
        for number in range(rounds):
            sid = f"{number:032x}"
            with entered(stage, "first", **claim("a", "b", sid)) as first:
                first.send(packed(2, 1, "who", "first"))
                assert answer(first)[:2] == [3, 1]
            served: list[str] = []
            both = threading.Barrier(2)

            def race(name: str, following: str, sid: str = sid) -> None:
                both.wait(5.0)  # noqa: B023  # both end within the round
                own = claim("b", following, sid, got=1)
                if _try_to_be_served(stage, name, own):
                    served.append(name)  # noqa: B023  # the same

            racing = [
                in_thread(lambda: race("owner", "c")),
                in_thread(lambda: race("thief", "d")),
            ]
            assert all(ends_within(thread, 5.0) for thread in racing)
            assert len(served) == 1, f"round {number}"
        eventually(lambda: len(stage.server) == rounds + 1, "one client each")


def test_t17_a_guess_costs_a_connection() -> None:
    """Wrong tokens are refused and change nothing; who has the right one goes on, and
    an old one is of no use afterwards."""
    with Stage(limits=Limits(refusal_rate=0)) as stage:
        stage.server.on("who")(lambda client, name: name)
        entered(stage, "owner", **claim("a", "b")).sock.close()
        for _ in range(300):
            with Compact.call(stage.address) as guesser:
                token = os.urandom(32).hex()
                own = {**claim("a", "e"), "token": token}
                guesser.send(hello("guess", **own))
                assert guesser.take_frame().startswith(b"$REFUSED$ ")
                assert guesser.take_all() == b""
        assert _try_to_be_served(stage, "owner", claim("b", "c"))
        assert not _try_to_be_served(stage, "thief", claim("a", "e"))
        assert not _try_to_be_served(stage, "thief", claim("b", "e"))


def _proved(peer: Compact, **claim: Any) -> list[Any]:
    """What a server that checks its clients says to a hello and a proof."""
    peer.send(hello("ann", **claim))
    assert b'"auth": true' in peer.take_frame()
    peer.send(frame(b"$COMPACT$") + packed(38, "a token"))
    return answer(peer)


def _call(server: Any, known: Authorities, files: dict[str, str]) -> Compact:
    """A client that shows a certificate."""
    context = known.client_context()
    context.load_cert_chain(files["cert"], files["key"])
    sock = socket.create_connection(server.get_addr())
    return Compact(context.wrap_socket(sock, server_hostname=HOST))


def test_t09_a_stolen_session_without_a_check(tmp_path: Path) -> None:
    """A session belongs to whom the certificate names, though nobody asks for more."""
    known = Authorities(tmp_path)
    server = start_threaded_server((HOST, 0), tls={**known.server, "ca": known.ca})

    with server, _call(server, known, known.client) as owner:
        owner.send(hello("ann", **claim("a", "b")))
        assert owner.take_frame().startswith(b"$WELCOME$ ")
        owner.send(frame(b"$COMPACT$"))
        with _call(server, known, known.second_client) as thief:
            thief.send(hello("ann", **claim("b", "e")))
            assert b"that session belongs to somebody else" in thief.take_frame()
        with _call(server, known, known.client) as again:
            again.send(hello("ann", **claim("b", "c")))
            assert b'"resumed": true' in again.take_frame()


def test_t09_a_stolen_session_under_another_certificate(tmp_path: Path) -> None:
    """Whoever shows a certificate of somebody else does not go on with a session,
    though it has its secret; its owner does."""
    known = Authorities(tmp_path)
    server = start_threaded_server((HOST, 0), tls={**known.server, "ca": known.ca})

    @server.authenticate
    def check(credentials: Credentials) -> Identity:
        return Identity(credentials.certificate_names[0])

    server.on("who")(lambda client: client.identity and client.identity.id)
    call = partial(_call, server, known)

    with server, call(known.client) as owner:
        assert _proved(owner, **claim("a", "b"))[0] == 37
        owner.send(packed(32, 0))
        with call(known.second_client) as thief:
            kind, code, text, *_ = _proved(thief, **claim("b", "e"))
            assert (kind, code) == (35, 3)
            assert text == "that session belongs to somebody else"
        owner.send(packed(2, 1, "who", None))
        assert answer(owner) == [3, 1, "ann@example.org"]
        with call(known.client) as again:
            kind, fields = _proved(again, **claim("b", "c", got=1))
            assert (kind, fields["resumed"]) == (37, True)


@pytest.mark.parametrize("number", [2, 1000, 2**53, 2**64 - 1])
def test_t18_an_ack_of_what_was_not_sent(number: int) -> None:
    """It ends that connection for good, whatever the number."""
    with Stage() as stage:
        stage.server.on("who")(lambda client, name: name)
        with entered(stage, "liar", **claim("a", "b")) as peer:
            peer.send(packed(2, 1, "who", "liar"))
            assert answer(peer)[:2] == [3, 1]
            peer.send(packed(32, number))
            assert peer.expect_bye(PROTOCOL_ERROR)
        eventually(lambda: "liar" in stage.left, "it leaves")


@needs_proc
def test_t18_acks_without_end_or_going_back() -> None:
    """Each says nothing new, and is nothing: neither an answer nor memory."""
    with Stage() as stage:
        stage.server.on("who")(lambda client, name: name)
        with entered(stage, "liar", **claim("a", "b")) as peer:
            for number in range(3):
                peer.send(packed(2, 2 * number + 1, "who", "liar"))
                assert answer(peer)[0] == 3
            before = resident()
            for _ in range(20):
                peer.send((packed(32, 3) + packed(32, 1) + packed(32, 0)) * 1000)
            peer.send(packed(33, 7))
            assert answer(peer) == [34, 7]
            assert resident() - before < 8 * MIB


@needs_proc
def test_t18_who_never_acknowledges_is_cut() -> None:
    """What is kept for a client that reads all and acknowledges nothing is bounded."""
    with (
        Stage(limits=Limits(outbox=64 * 1024)) as stage,
        entered(stage, "mute", **claim("a", "b")) as peer,
    ):
        eventually(lambda: "mute" in stage.joined, "it joins")
        cut = in_thread(peer.take_all)
        before, data = resident(), b"x" * 4096
        with contextlib.suppress(UnknownClient):  # its session ends, too
            while cut.is_alive():
                stage.server.send_client("mute", "x", data, when_slow="disconnect")
                assert resident() - before < 16 * MIB
        assert ends_within(cut, 5.0)


# --- slow readers and floods -------------------------------------------------------


class Readers:
    """Raw clients whose bytes are read and thrown away in a thread of their own."""

    def __init__(self, peers: list[Raw]) -> None:
        self._selector = selectors.DefaultSelector()
        for peer in peers:
            self._selector.register(peer.sock, selectors.EVENT_READ)
        self.taken = 0
        self._over = False
        self._thread = in_thread(self._run)

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.05):
                self.taken += len(key.fileobj.recv(1 << 18))  # type: ignore[union-attr]  # a socket

    def stop(self) -> None:
        """Read no more."""
        self._over = True
        assert ends_within(self._thread, 5.0)
        self._selector.close()


@needs_proc
def test_t19_readers_that_stop_cost_the_others_nothing() -> None:
    """Some of many stop to read: they are cut, the others get all of it and answers as
    soon as before, and what is kept is bounded."""
    many, stopped, data = 20, 6, b"x" * 32 * 1024
    limits = Limits(outbox=128 * 1024)
    with Stage(limits=limits, roster=False) as stage, contextlib.ExitStack() as stack:
        names = [f"reader {number}" for number in range(many)]
        honest = [stack.enter_context(stage.peer(n, "crowd")) for n in names]
        for each in range(stopped):
            stack.enter_context(stage.peer(f"stopped {each}", "crowd", buffer=4096))
        readers = Readers(honest)
        stack.callback(readers.stop)
        before, waits = resident(), []
        number = 0
        while len(stage.left) < stopped:
            number += 1
            assert number < 1000, "those who stopped were never cut"
            stage.server.send_group_raw("crowd", data)
            expected = number * many * len(frame(data))
            eventually(lambda n=expected: readers.taken >= n, "they get it")  # type: ignore[misc]  # a default
            waits.append(stage.check())
        assert set(stage.left) == {f"stopped {each}" for each in range(stopped)}
        assert len(waits) > 4
        assert sorted(waits)[len(waits) // 2] < 0.1
        assert resident() - before < stopped * 4 * limits.outbox + 16 * MIB


@needs_proc
@pytest.mark.parametrize("splinter", [0, 5], ids=["together", "in splinters"])
def test_t20_a_flood_of_pings(splinter: int) -> None:
    """The others are served meanwhile, what came together is answered together, and
    no memory is left."""
    pings = b"".join(packed(33, number % 100) for number in range(5000))
    rounds = 2 if splinter else 20
    with Stage() as stage, joined(stage) as peer:
        before = resident()

        def flood() -> None:
            for _ in range(rounds):
                for at in range(0, len(pings), splinter or len(pings)):
                    peer.send(pings[at : at + (splinter or len(pings))])

        flooding = in_thread(flood)
        waits = [stage.check()]
        while flooding.is_alive():
            waits.append(stage.check())
        assert sorted(waits)[len(waits) // 2] < 0.25
        peer.send(packed(33, 777))
        answers = 0
        while peer.take_packed() != [34, 777]:
            answers += 1
        assert answers <= 5000 * rounds // (1 if splinter else 4)
        assert resident() - before < 16 * MIB


def test_t20_groups_come_and_go() -> None:
    """A client that is in and out of thousands of groups leaves none behind, and
    holds up nobody; one that wants too many at once is ended."""
    with Stage() as stage, joined(stage) as peer:

        def churn() -> None:
            for number in range(4000):
                name = f"group {number}"
                peer.send(packed(15, [name], []) + packed(15, [], [name]))
            peer.send(packed(2, 1, "done", None))

        stage.server.on("done")(lambda client: True)
        churning = in_thread(churn)
        waits = [stage.check()]
        while churning.is_alive():
            waits.append(stage.check())
        assert sorted(waits)[len(waits) // 2] < 0.25
        while (said := peer.take_packed())[0] != 3:
            assert said[0] in {15, 32}
        assert stage.server._engine.registry.groups() == []
        peer.send(packed(15, [str(number) for number in range(1000)], []))
        peer.expect_bye(PROTOCOL_ERROR)
        eventually(lambda: "bad" in stage.left, "it leaves")
        assert stage.server._engine.registry.groups() == []


@needs_proc
def test_t20_clients_come_and_go() -> None:
    """Hundreds that join, change and leave at once: each once, and nothing of them
    stays."""
    with Stage(roster=False) as stage:

        def churn(count: int) -> None:
            for number in range(count):
                with Raw.call(stage.address) as peer:
                    body = classic_hello(f"c{number}", f"g{number}")
                    peer.send(frame(body) + frame(b"$CHGROUP$ x"))
                    peer.send(frame(b"$USRCLOSE$"))
                    peer.take_all()

        churn(50)  # what is made once is made
        before = resident()
        churning = in_thread(lambda: churn(400))
        waits = [stage.check()]
        while churning.is_alive():
            waits.append(stage.check())
        assert sorted(waits)[len(waits) // 2] < 0.25
        eventually(lambda: len(stage.left) == 450, "all leave")
        assert len(stage.server) == 1
        registry = stage.server._engine.registry
        assert (registry.names(), registry.groups()) == (["honest"], [])
        assert resident() - before < 8 * MIB


# --- what is told ------------------------------------------------------------------


def spelled(port: int) -> tuple[bytes, ...]:
    """How a port may stand on a wire, as text and packed."""
    return str(port).encode(), b"\xcd" + port.to_bytes(2, "big")


def test_t22_nobody_learns_an_address() -> None:
    """``roster=False``: no byte of another's address is sent to anybody, whatever is
    asked for and whatever happens, over either wire."""
    with Stage(roster=False) as stage, contextlib.ExitStack() as stack:
        old = stack.enter_context(stage.peer("old", "g"))
        new = stack.enter_context(joined(stage, "new"))
        stage.server.on("fail")(lambda client: 1 / 0)
        new.send(packed(11, True))
        ports, ids = [stage.honest.get_client_addr()[1]], itertools.count(1, 2)
        for number in range(3):
            with stage.peer(f"guest {number}", "g") as guest:
                ports.append(guest.address[1])
                guest.send(frame(b"$CHNAME$ x") + frame(b"$CHGROUP$ y"))
                where = f"{HOST}:{guest.address[1]}"
                for who in ("honest", f"guest {number}", "x", "nobody", where):
                    old.send(frame(b"$GETCLT$ " + who.encode()))
                    new.send(packed(2, next(ids), "none", who))
            eventually(lambda n=number: len(stage.left) == n + 1, "it leaves")  # type: ignore[misc]  # a default
        for who in ("honest", "old", "new", "nobody", where):
            new.send(packed(2, next(ids), "$GETCLT$", who))
        new.send(packed(2, next(ids), "fail", None))
        old.send(frame(b"fail") + frame(b"none x") + frame(b"$CHGROUP$ h"))
        stage.server.send_all_clients("news", "all")
        stage.honest.on("news")(lambda: None)
        stage.check()
        stage.server.disconnect_client("old")
        stage.server.disconnect_client("new")
        for heard in (old.take_all(), new.take_all()):
            assert b"news" in heard
            assert b"roster=False" in heard
            assert HOST.encode() not in heard
            for port in ports:
                for text in spelled(port):
                    assert text not in heard


#: What would begin a new line in a log, colour it, or hide what stands there.
NASTY = "x\r\nERROR:root:forged\x1b[31m\x07\x00\u2028\x85\u202e"


def test_t23_no_line_is_forged(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a stranger calls itself or says, its line in the log is one line, of
    printable letters and some hundred of them."""
    caplog.set_level(logging.DEBUG, "hisock")
    long = NASTY * 100
    with Stage() as stage:

        @stage.server.on("number")
        def number(client: ClientInfo, message: int) -> None: ...

        @stage.server.on("named", requires="nobody")
        def named(client: ClientInfo, message: int) -> None: ...

        for nasty in (NASTY, long):
            escaped = json.dumps(nasty)[1:-1]
            for name in (nasty.replace("\x00", ""), escaped):
                with stage.stranger() as peer:
                    peer.throw(frame(classic_hello(name)))
                    assert peer.take_all() == b""
            raw = nasty.encode()
            says = [b"number " + raw, raw, b"named " + raw, b"$CHNAME$ " + raw]
            for body in says:
                with stage.peer("x" * 200) as peer:
                    peer.throw(frame(body) + frame(b"$USRCLOSE$"))
                    peer.take_all()
            for bad in (
                packed(1, "number", nasty),
                packed(1, nasty, nasty),
                packed(2, 1, nasty, nasty),
                packed(9, nasty),
                packed(10, nasty),
                packed(15, [nasty], []),
                packed(35, 1, nasty),
                packed(35, nasty, nasty),
                packed(4, 2, nasty, nasty),
                packed(nasty, nasty),
                packed(1, {nasty: 1}, 1),
            ):
                with joined(stage, "y" * 200) as compact:
                    compact.throw(bad + packed(35))
                    compact.take_all()
        eventually(lambda: len(stage.left) == 30, "all leave")
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) > 60
    for text in texts:
        assert text.isprintable(), text
        assert len(text) < 1024, text


def test_t23_no_flood_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of bad hellos, refusals and violations are a few lines; only that a
    client joined and left is told each time, and not as a warning."""
    many = 200  # of each kind, in place of 100,000
    caplog.set_level(logging.INFO, "hisock")
    limits = Limits(refusal_rate=0)
    with Stage(unique_names="reject", limits=limits, roster=False) as stage:
        lines = len(caplog.records)
        for number in range(many):
            for bad in (
                frame(classic_hello("honest")),
                frame(b"$CLTHELLO$ %d" % number),
                frame(b'$CLTHELLO$ {"name": "\\u0007%d", "group": 1}' % number),
                hello(f"old {number}", 1),
                b"?%d" % number,
                header(10**9 + number) + b"$CLTHELLO$ ",
            ):
                with stage.stranger() as peer:
                    peer.throw(bad)
                    peer.take_all()
        assert len(caplog.records) - lines <= 20
        for number in range(many):
            with Raw.call(stage.address) as peer:
                peer.throw(frame(classic_hello(f"c {number}")) + b"12x" * 9)
                peer.take_all()
        with joined(stage, "asker") as peer:
            peer.send(packed(9, "honest") * many + packed(35))
            peer.take_all()
        eventually(lambda: len(stage.left) == many + 1, "all leave")
        warned = [each for each in caplog.records if each.levelno > logging.INFO]
        assert len(warned) <= 20
        # Beside the warnings: joined and left, each once.
        assert len(caplog.records) - lines <= 2 * many + 40


def test_t24_a_token_is_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By ``hmac.compare_digest``, over hashes, with each token that may be good."""
    import hmac

    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def watched(one: Any, other: Any) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    with Stage() as stage:
        entered(stage, "owner", **claim("a", "b")).sock.close()
        eventually(lambda: "owner" in stage.joined, "it joins")
        monkeypatch.setattr(hmac, "compare_digest", watched)
        for token in ("c", "a"):
            with Compact.call(stage.address) as peer:
                peer.send(hello("owner", **claim(token, "d")))
                peer.take_frame()
            assert compared == [(32, 32)] * len(compared)
            assert len(compared) in {1, 2}  # one once the client had confirmed
            compared.clear()


# --- a hostile server --------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(PIECES)
def test_t26_whatever_a_server_says(said: list[bytes]) -> None:
    """Our client handles it or ends, with an error of ours and nothing else."""
    with served(reconnect=False) as (client, server):
        client.on("*")(lambda command, message: None)
        for piece in said:
            server.throw(piece)
        server.sock.shutdown(1)
        with contextlib.suppress(HiSockError):
            client.run_forever()
        assert not client.is_connected


WELCOMES = {
    "no JSON": b"$WELCOME$ {",
    "deep": b"$WELCOME$ " + b"[" * 100_000,
    "a list": b"$WELCOME$ []",
    "no version": b'$WELCOME$ {"proto": -1}',
    "a name of control characters": b'$WELCOME$ {"proto": 2, "name": "\\u0007"}',
    "a window in words": b'$WELCOME$ {"proto": 2, "window": "long"}',
    "a time beyond all": b'$WELCOME$ {"proto": 2, "now": 1e999}',
    "not a number": b'$WELCOME$ {"proto": 2, "now": NaN}',
    "a key twice": b'$WELCOME$ {"proto": 2, "proto": 2}',
    "a session of another": b'$WELCOME$ {"proto": 2, "now": 0, "sid": "x"}',
    "a refusal that is none": b"$REFUSED$ 5",
    "a refusal in numbers": b'$REFUSED$ {"code": 5, "text": 7, "retry": "x"}',
    "an answer to nobody": b'{"ip": ["127.0.0.1", 5], "name": "x", "group": null}',
}


@pytest.mark.parametrize("answer", list(WELCOMES.values()), ids=list(WELCOMES))
def test_t26_a_hostile_welcome(answer: bytes) -> None:
    """It ends our client with an error that says what was wrong, or is overlooked."""
    listener = Listener()
    with (
        listener.sock,
        connect(listener.address, "us", reconnect=False) as client,
        listener.accept() as server,
    ):
        server.throw(frame(answer))
        server.sock.shutdown(1)
        with pytest.raises(ClientDisconnected) as caught:
            client.run_forever()
        assert str(caught.value)
        assert not client.is_connected


def test_t26_nobody_is_sent_elsewhere() -> None:
    """Whatever a server says of other places, its client comes back to where its user
    sent it, and no connection reaches the other."""
    trap, listener = Listener(), Listener()
    place = f"{HOST}:{trap.address[1]}"
    extra = {key: place for key in ("redirect", "server", "address", "alt", "to")}
    with trap.sock, listener.sock, threaded_connect(listener.address, "us") as client:
        for _ in range(2):
            with listener.accept() as raw:
                server = Compact(raw.sock)
                body = json.loads(server.take_frame().removeprefix(b"$CLTHELLO$ "))
                assert server.take_frame() == b"$DH_NUMS$"
                fields = {"proto": 2, "now": 0, "sid": body["sid"], "epoch": "e"}
                fields |= {"window": 9.0, "name": "us", "group": None, **extra}
                server.send(frame(b"$WELCOME$ " + json.dumps(fields).encode()))
                eventually(lambda: client.wire, "it is welcomed")
                # 16: the server goes away, come back at once.
                server.send(packed(35, 16, f"moved to {place}", 0, place))
        listener.accept().sock.close()  # it calls the same again
        trap.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.sock.accept()


def test_t26_answers_to_nobody() -> None:
    """Replies that our client did not ask for, before its question and beside it, are
    nobody's; it gets the one that is its own."""
    with served() as (client, server):
        for number in range(500):
            server.send(packed(3, 2 * number + 1001, "forged"))
        got: list[Any] = []
        asking = in_thread(lambda: got.append(client.call("sum", 1)))
        kind, number, *_ = server.take_packed()
        assert kind == 2
        for wrong in (number + 2, number + 1, 2**53, number - 2):
            if wrong > 0:
                server.send(packed(3, wrong, "forged"))
        server.send(packed(3, number, "right") + packed(3, number, "forged"))
        assert ends_within(asking, 5.0)
        assert got == ["right"]
        assert client.is_connected


# --- descriptors -------------------------------------------------------------------

SHOWS_SOCKETS = """
import os
for fd in os.listdir("/proc/self/fd"):
    try:
        print(os.readlink(f"/proc/self/fd/{fd}"))
    except OSError:
        pass
"""


def _sockets() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return {each for each in found if each.startswith("socket:")}


@needs_proc
def test_t30_no_socket_is_inherited() -> None:
    """A program that is started beside us has none of our sockets, even if nobody
    closed anything for it."""
    before = _sockets()
    with Stage() as stage, joined(stage):
        ours = _sockets() - before
        assert len(ours) >= 5  # a listener, both ends of two connections
        shown = subprocess.run(
            [sys.executable, "-c", SHOWS_SOCKETS],
            close_fds=False,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=20,
        ).stdout
        assert shown
        assert not ours & set(shown.splitlines())
