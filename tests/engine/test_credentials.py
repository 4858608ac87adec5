"""The parts of authentication alone: the kept beginning, tokens, names, policies."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest

from hisock import Credentials, Identity, aio, start_threaded_server
from hisock.engine.proof import Persona, Proof
from hisock.errors import InvalidOption, RemoteProtocolError
from hisock.handlers.permission import check_permission, is_permitted
from hisock.hub.names import Policy, claim, first_of
from hisock.hub.registry import Registry
from hisock.session.agreement import (
    EARLY,
    FirstFrame,
    Trial,
    hear_verdict,
    make_welcome,
    pack,
    refused,
)
from hisock.session.events import Presented
from hisock.types import ClientInfo
from hisock.wire.compact import encode
from hisock.wire.frames import Auth, Bye, Hello, Refusal, Welcome

HELLO = Hello("ann", None, 2)
LOCALHOST = "127.0.0.1"


def text(*bodies: bytes) -> bytes:
    """Classic frames."""
    return b"".join(b"%-16d" % len(body) + body for body in bodies)


def trial(*, asked: bool = True, **options: Any) -> Trial:
    """A client that has said hello."""
    made = Trial(HELLO, 16, 0, **{"expects_proof": True, **options})
    made.is_asked = asked
    return made


# --- what comes before the verdict ---------------------------------------------------


def test_proof_may_come_in_any_pieces() -> None:
    """It is the same, byte by byte, and what comes after it is kept as it is."""
    whole = text(b"a 1", b"$COMPACT$") + encode(Auth("t")) + b"rest"
    for cut in range(len(whole) + 1):
        made = trial()
        presented = [made.feed(part) for part in (whole[:cut], whole[cut:]) if part]
        assert [p for p in presented if p] == [Presented(HELLO, "t")]
        assert (made.bodies, made.count, made.rest()) == ([b"a 1"], 1, b"rest")
    made = trial()
    pieces = [made.feed(whole[at : at + 1]) for at in range(len(whole))]
    assert [p for p in pieces if p] == [Presented(HELLO, "t")]
    assert made.rest() == b"rest"
    assert made.rest() == b""


def test_what_has_no_number_is_not_counted() -> None:
    """The probe; names and groups have one."""
    made = trial()
    made.feed(text(b"$DH_NUMS$", b"$CHNAME$ x", b"it 1"))
    assert made.count == 2
    old = trial(expects_proof=False)
    old.feed(text(b"it 1", b"$COMPACT$"))
    assert (old.count, old.bodies) == (0, [b"it 1", b"$COMPACT$"])


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        text(b"x" * EARLY),
        text(*[b""] * (EARLY // 16 + 1)),
        text(b"$COMPACT$ x"),
        text(b"$COMPACT$") + b"\0\0\0\1\x90",
        text(b"$COMPACT$") + b"\0\0\0\0",
        text(b"$COMPACT$") + (EARLY + 1).to_bytes(4, "big"),
        text(b"$COMPACT$") + b"\0\0\0\2\x91\x26",
        text(b"$COMPACT$") + b"\0\0\0\3\x92\x26\xc1",
        text(b"$COMPACT$") + b"\0\0\0\3\x92\x25\x80",
        text(b"$COMPACT$") + encode(Auth("t")) + b"x" * (EARLY + 1),
    ],
    ids=range(11),
)
def test_what_a_stranger_may_not_say(data: bytes) -> None:
    """Raises nothing but what says so."""
    with pytest.raises(RemoteProtocolError):
        trial().feed(data)


def test_compact_is_said_by_who_was_asked() -> None:
    """Before, nobody can mean it."""
    with pytest.raises(RemoteProtocolError, match="before the welcome"):
        trial(asked=False).feed(text(b"$COMPACT$"))


@pytest.mark.parametrize(
    "data", [text(b"$USRCLOSE$"), text(b"$COMPACT$") + encode(Bye())]
)
def test_a_goodbye_counts_at_once(data: bytes) -> None:
    """Who has gone is not checked."""
    made = trial()
    assert made.feed(data) is None
    assert made.has_left


def test_a_first_frame_keeps_no_more_than_it_may() -> None:
    """Neither before nor after it is whole."""
    first = FirstFrame()
    assert first.feed(b"\0\0") is None
    assert first.feed(b"\0\2\x91") is None
    assert first.feed(b"\x26ab") == b"\x91\x26"
    assert first.is_whole
    assert first.feed(b"c" * (EARLY - 2)) is None
    with pytest.raises(RemoteProtocolError):
        first.feed(b"d")
    assert first.rest()[:3] == b"abc"


@pytest.mark.parametrize(
    ("bye", "verdict"),
    [
        (Bye(3, "no"), Refusal("unauthorized", "no")),
        (Bye(3, "no", 0), Refusal("unauthorized", "no", 0)),
        (Bye(17, "full", 500), Refusal("busy", "full", 500)),
        (Bye(1), Refusal("kicked", "kicked")),
        (Bye(99, "new"), Refusal("refused", "new")),
        (Bye(20, "late", 0), Bye(20, "late", 0)),
        (Bye(20, "late"), Refusal("silent", "late")),
        (Bye(16, "soon", 9), Bye(16, "soon", 9)),
    ],
)
def test_a_goodbye_in_the_place_of_a_welcome(bye: Bye, verdict: Refusal | Bye) -> None:
    """Is a refusal, unless it only asks to come back."""
    assert hear_verdict(encode(bye)[4:]) == verdict
    if isinstance(verdict, Refusal):
        assert refused(verdict).code == verdict.code


def test_a_welcome_goes_there_and_back() -> None:
    """With every field."""
    welcome = make_welcome("ann", "red", 5, None, resumed=False, reason="")
    frame = pack(welcome)
    assert msgspec.msgpack.decode(frame[4:])[0] == 37
    assert hear_verdict(frame[4:]) == welcome


def test_nothing_shows_a_token() -> None:
    """No repr of what carries one."""
    shown = [Auth("secret"), Presented(HELLO, "secret"), Proof("secret")]
    shown += [Credentials(token="secret", name=None, group=None, address=None)]
    assert "secret" not in repr(shown) + str(shown[0]) + str(shown[1])


# --- tokens --------------------------------------------------------------------------


def test_a_token_or_none() -> None:
    """With one a client keeps quiet."""
    assert (Proof(None).take(), Proof(None).is_secretive) == (None, False)
    assert (Proof("t").take(), Proof("t").is_secretive) == ("t", True)
    assert Proof(None, is_secretive=True).is_secretive
    asked: list[int] = []
    proof = Proof(lambda: f"{asked.append(1) or len(asked)}")  # type: ignore[func-returns-value]  # short
    proof.ask()
    proof.ask()
    assert (proof.take(), asked) == ("1", [1])
    proof.ask()
    assert proof.take() == "2"


def test_a_coroutine_is_awaited_for_a_token() -> None:
    """At the first connect and on the way back, in the program's own loop."""

    async def scene() -> None:
        here, resumed = threading.get_ident(), asyncio.Event()
        seen: list[Any] = []

        async def token() -> str:
            assert threading.get_ident() == here
            await asyncio.sleep(0)
            return f"t{len(seen)}"

        with start_threaded_server((LOCALHOST, 0)) as server:

            @server.authenticate
            def check(credentials: Credentials) -> bool:
                seen.append((credentials.token, credentials.resuming))
                return True

            server.on("it")(lambda client, message: message)
            async with aio.connect(server.addr, token=token) as client:
                client.on_resume(lambda: resumed.set())
                assert await client.call("it", 1) == 1
                server.disconnect_client(next(iter(server)), reconnect=True)
                await resumed.wait()
                assert await client.call("it", 2) == 2
        assert seen == [("t0", False), ("t1", True)]

    asyncio.run(asyncio.wait_for(scene(), 10))


def test_a_coroutine_that_brings_no_token() -> None:
    """Fails the connect."""

    async def token() -> int:
        return 7

    async def scene() -> None:
        with pytest.raises(InvalidOption, match="not int"):
            await aio.connect((LOCALHOST, 1), token=token)

    asyncio.run(scene())


# --- names ---------------------------------------------------------------------------


def test_what_a_client_is_called() -> None:
    """Its own wishes hold until the server says otherwise, each in its turn."""
    persona = Persona("ann", None)
    persona.says_hello()
    persona.wants("name", "a")
    persona.is_welcome(Welcome(2, "Ann", "red"))
    assert (persona.name, persona.group) == ("a", "red")
    persona.wants("name", "b")
    assert persona.is_told("name", "Ann") == (True, "a")
    assert persona.name == "b"
    assert persona.is_told("name", "b") == (False, None)
    assert persona.is_told("name", "b") == (False, None)
    assert persona.is_told("name", "c") == (True, "b")
    assert persona.name == "c"
    persona.wants("group", None)
    persona.begins_anew()
    assert persona.is_told("group", "blue") == (True, None)
    assert persona.group == "blue"


class Member:
    """Somebody who joined."""

    def __init__(self, name: str | None, user: str | None, *, dropped: bool) -> None:
        self.info = ClientInfo((LOCALHOST, id(self)), name, None)
        self.info._session.identity = None if user is None else Identity(user)
        self.is_dropped = dropped


@pytest.mark.parametrize(
    ("policy", "dropped", "holder", "newcomer", "goes"),
    [
        ("allow", False, None, None, []),
        ("reject", False, None, None, None),
        ("reject", True, None, None, [0]),
        ("reject", True, "u", "u", [0]),
        ("reject", True, "u", "v", None),
        ("reject", True, None, "v", None),
        ("reject", True, "u", None, None),
        ("reject", False, "u", "u", None),
        ("replace", False, None, None, [0]),
        ("replace", True, "u", "v", [0]),
    ],
)
def test_who_has_to_go(
    policy: Policy,
    dropped: bool,
    holder: str | None,
    newcomer: str | None,
    goes: list[int] | None,
) -> None:
    """For a name that one other has; nobody for no name, nor for one's own."""
    registry: Registry[Member] = Registry()
    other = Member("ann", holder, dropped=dropped)
    registry.add(other)
    who = Member("ann", newcomer, dropped=False)
    identity = who.info.identity
    found = claim(registry, "ann", who, identity, policy)
    assert found == (None if goes is None else [other for _ in goes])
    assert claim(registry, None, who, identity, policy) == []
    assert claim(registry, "ben", who, identity, policy) == []
    assert claim(registry, "ann", other, other.info.identity, policy) == []


def test_the_first_who_is_there() -> None:
    """Else the first of all."""
    gone, here = Member("a", None, dropped=True), Member("a", None, dropped=False)
    assert first_of([gone, here, here]) is here
    assert first_of([gone, gone]) is gone


# --- permissions ---------------------------------------------------------------------


def test_what_is_permitted() -> None:
    """A role that the client has, or what a function says."""
    info = ClientInfo((LOCALHOST, 1), "ann", None)
    assert is_permitted(None, info)
    assert not is_permitted("admin", info)
    info._session.identity = Identity(1, roles=frozenset({"admin"}))
    assert is_permitted("admin", info)
    assert is_permitted(lambda client: client["name"] == "ann", info)
    assert not is_permitted(lambda client: [], info)

    async def later() -> bool:
        return True

    future: asyncio.Future[bool] = asyncio.Future(loop=asyncio.new_event_loop())
    for answer in (later, lambda: future):
        with pytest.raises(InvalidOption, match="awaited"):
            is_permitted(lambda client, answer=answer: answer(), info)  # type: ignore[misc]  # of this turn
    future.get_loop().close()


class Later:
    """An object whose call is a coroutine."""

    async def __call__(self, client: Any) -> bool:
        return True


@pytest.mark.parametrize("requires", [Later(), Later().__call__, 1.5, b"admin", ""])
def test_what_permits_nothing(requires: Any) -> None:
    """Is refused when it is registered."""
    with pytest.raises(InvalidOption):
        check_permission(requires)
