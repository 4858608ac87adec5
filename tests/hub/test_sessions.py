"""Who may come back to a server after a cut, and what the others are told."""

from __future__ import annotations

import sys
from typing import Final

import pytest

from hisock.hub.sessions import Sessions
from hisock.wire.frames import PROTO, Hello

SID: Final = "5" * 32
TOKEN: Final = "a" * 64
NEXT: Final = "b" * 64


def draw(count: int) -> bytes:
    """The same bytes each time."""
    return bytes(range(count))


def hello(
    sid: str = SID,
    *,
    token: str = TOKEN,
    epoch: str = "",
    window: float = 30.0,
    got: int = 0,
) -> Hello:
    """What a client says that wants to be able to come back."""
    return Hello(
        *("Ada", None, PROTO),
        sid=sid,
        token=token,
        next=NEXT,
        epoch=epoch,
        window=window,
        got=got,
    )


@pytest.fixture
def sessions() -> Sessions[str]:
    """A server without any."""
    return Sessions(draw, 30.0)


def test_a_server_has_a_life(sessions: Sessions[str]) -> None:
    """Each life is named by random bytes, so that no two are taken for one."""
    other: Sessions[str] = Sessions(lambda count: b"\xff" * count, 30.0)

    assert (sessions.life, other.life) == ("0001020304050607", "ff" * 8)
    assert [*sessions] == []


@pytest.mark.parametrize(
    ("sid", "theirs", "ours", "wanted"),
    [
        (SID, 30.0, 30.0, True),
        (SID, 0.001, 1e9, True),
        ("", 30.0, 30.0, False),
        (SID, 0.0, 30.0, False),
        (SID, 30.0, 0.0, False),
    ],
)
def test_both_sides_want_a_session(
    sid: str, theirs: float, ours: float, wanted: bool
) -> None:
    """A client of 1.1 names none; a window of 0, on either side, is none."""
    sessions: Sessions[str] = Sessions(draw, ours)

    assert sessions.wants(hello(sid, window=theirs)) is wanted


@pytest.mark.parametrize(
    ("theirs", "ours", "holds"), [(30.0, 5.0, 5.0), (5.0, 30.0, 5.0), (1e9, 30.0, 30.0)]
)
def test_the_shorter_window_holds(theirs: float, ours: float, holds: float) -> None:
    """Nobody keeps a session for longer than it said."""
    sessions: Sessions[str] = Sessions(draw, ours)

    assert sessions.open(hello(window=theirs), "Ada").window == holds


def test_a_session_is_found(sessions: Sessions[str]) -> None:
    """By the name that its client drew, and by no other; it begins with nothing."""
    session = sessions.open(hello(), "Ada")

    assert sessions.find(hello()) == ("Ada", session)
    assert sessions.find(hello("6" * 32)) is None
    assert [*sessions] == ["Ada"]
    assert (session.sid, session.epoch) == (SID, f"{sessions.life}-1")
    assert (session.received, session.replay.last) == (0, 0)


def test_a_session_knows_its_secrets(sessions: Sessions[str]) -> None:
    """The hello's token and the next are good; nothing of them is kept readable."""
    tokens = sessions.open(hello(), "Ada").tokens
    assert tokens is not None

    admitted = [tokens.admits(each) for each in (TOKEN, NEXT, "c" * 64, "")]
    assert admitted == [True, True, False, False]
    assert {len(digest) for digest in tokens._good} == {32}
    assert not {TOKEN.encode(), NEXT.encode()} & {*tokens._good}


def test_an_ended_session_is_not_found(sessions: Sessions[str]) -> None:
    """Nobody comes back to it; others are left alone."""
    ended = sessions.open(hello(), "Ada")
    other = sessions.open(hello("6" * 32), "Bob")
    sessions.end(ended, "expired", 0)

    assert sessions.find(hello()) is None
    assert sessions.find(hello("6" * 32)) == ("Bob", other)
    assert [*sessions] == ["Bob"]


@pytest.mark.parametrize("reason", ["expired", "overflow", "evicted", "unknown"])
@pytest.mark.parametrize("epoch", ["", "0001020304050607", "ff" * 8])
def test_a_client_is_told_why_its_session_ended(
    sessions: Sessions[str], reason: str, epoch: str
) -> None:
    """The reason it was ended for, whatever the client has heard of it."""
    sessions.end(sessions.open(hello(), "Ada"), reason, 0)

    assert sessions.why_not(hello(epoch=epoch)) == reason


def test_the_first_reason_holds(sessions: Sessions[str]) -> None:
    """A session that has ended does not end again for another reason."""
    session = sessions.open(hello(), "Ada")
    sessions.end(session, "overflow", 0)
    sessions.end(session, "unknown", 0)

    assert sessions.why_not(hello()) == "overflow"


@pytest.mark.parametrize(
    ("epoch", "reason"),
    [("", ""), ("0001020304050607", "unknown"), ("ff" * 8, "server_restarted")],
)
def test_why_a_session_was_never_here(
    sessions: Sessions[str], epoch: str, reason: str
) -> None:
    """A new one needs no reason; one of another life says that the server is new."""
    assert sessions.why_not(hello(epoch=epoch)) == reason


def test_a_name_may_be_used_again(sessions: Sessions[str]) -> None:
    """After the end the client begins anew under the same name, with new secrets."""
    old = sessions.open(hello(), "Ada")
    sessions.end(old, "expired", 0)
    new = sessions.open(hello(token="c" * 64), "Ada again")

    assert sessions.find(hello()) == ("Ada again", new)
    assert new is not old
    assert sessions.why_not(hello()) == ""
    assert new.tokens is not None
    assert [new.tokens.admits(token) for token in (TOKEN, "c" * 64)] == [False, True]


def test_a_client_is_told_how_much_it_missed(sessions: Sessions[str]) -> None:
    """Of the session it speaks of, and of no other; unknown if that is not known."""
    for got, missed in ((0, 7), (5, 2), (7, 0), (9, 0)):
        old = sessions.open(hello(), "Ada")
        sessions.end(old, "expired", 7)
        new = sessions.open(hello(epoch=old.epoch, got=got), "Ada again")
        assert (new.reason, new.missed) == ("expired", missed)
    sessions.end(new, "expired", 7)
    assert sessions.open(hello(epoch=old.epoch, got=1), "Ada").missed is None
    assert sessions.open(hello("9" * 32, epoch="ff" * 8), "Bob").missed is None


def test_a_second_end_spares_the_session_that_came_after(
    sessions: Sessions[str],
) -> None:
    """The end of one session is not that of the next under the same name."""
    old = sessions.open(hello(), "Ada")
    sessions.end(old, "expired", 0)
    new = sessions.open(hello(), "Ada again")
    sessions.end(old, "unknown", 0)

    assert sessions.find(hello()) == ("Ada again", new)
    assert sessions.why_not(hello()) == ""


def test_ended_sessions_cost_a_bounded_memory(sessions: Sessions[str]) -> None:
    """The oldest ends are forgotten, with their members; the newest are remembered."""
    count = 10_100
    for number in range(count):
        sessions.end(sessions.open(hello(f"{number:032x}"), "x"), "expired", 0)
    told = [sessions.why_not(hello(f"{number:032x}")) for number in range(count)]

    assert told == [""] * 100 + ["expired"] * 10_000
    assert [*sessions] == []
    assert sys.getsizeof(sessions._ended) < 2**20
