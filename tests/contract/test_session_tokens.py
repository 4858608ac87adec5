"""Who may go on with a session: raw clients with one token after the other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from . import Net, RawCompact, Record

#: What a client draws: its session, and tokens one after the other.
SID = "0" * 31 + "1"
TOKENS = [digit * 64 for digit in "abcdef"]


def claim(place: int, got: int = 0, epoch: str | None = None) -> dict[str, Any]:
    """What a hello says of a session, with the token of that place."""
    return {
        **{"sid": SID, "token": TOKENS[place], "next": TOKENS[place + 1]},
        **{"got": got, "epoch": epoch, "window": 30.0, "beats": False},
    }


@pytest.fixture
def told(compact: Net) -> Record:
    """What the server's events said."""
    return Record()


class Claims:
    """A server, and raw clients that say of which session they are."""

    def __init__(self, net: Net, told: Record) -> None:
        self.net = net
        self.told = told
        self.server = net.server()
        server = self.server
        server.on("join")(lambda who: told("join"))
        server.on_drop(lambda who: told("drop"))
        server.on_resume(lambda who: told("resume"))
        server.on("leave")(lambda who: told("leave"))
        server.on("echo")(lambda who, message: server.send_client(who, "it", message))
        net.turn()

    def client(
        self,
        place: int,
        got: int = 0,
        epoch: str | None = None,
        *,
        listens: bool = True,
    ) -> RawCompact:
        """A raw client with the token of that place; it has heard what comes of it."""
        peer = self.net.raw_client(
            self.server, "ann", None, claim=claim(place, got, epoch)
        )
        assert isinstance(peer, RawCompact)
        if listens:
            peer.wait_for_answer()
        return peer

    def welcomed(self, place: int, got: int = 0) -> RawCompact:
        """One that is let in, has confirmed that, and has an answer."""
        peer = self.client(place, got)
        self.check(peer)
        return peer

    @staticmethod
    def check(peer: RawCompact, said: bytes = b"hello") -> None:
        """It is served."""
        peer.send(b"echo " + said)
        assert peer.receive() == b"it " + said

    @staticmethod
    def check_all(peer: RawCompact, expected: list[bytes]) -> None:
        """It hears exactly this, without having said anything."""
        assert peer.take(len(expected)) == expected

    @staticmethod
    def expect_refusal(peer: RawCompact) -> dict[str, Any]:
        """Wait for it, and for the end behind it."""
        word, _, rest = peer.receive().partition(b" ")
        assert word == b"$REFUSED$"
        peer.expect_cut()
        refusal: dict[str, Any] = json.loads(rest)
        return refusal


@pytest.fixture
def claims(compact: Net, told: Record) -> Claims:
    """A server of every face, and raw clients of one session."""
    return Claims(compact, told)


def test_a_session_is_welcomed(claims: Claims) -> None:
    """With what the client has to know of it; the next token goes on with it."""
    first = claims.welcomed(0)
    epoch = first.welcome["epoch"]
    assert first.welcome["sid"] == SID
    assert epoch
    assert (first.welcome["got"], first.welcome["resumed"]) == (0, False)
    assert first.welcome["window"] == 30.0
    first.close()
    second = claims.client(1, got=1, epoch=epoch)
    claims.check(second, b"again")
    assert second.welcome["epoch"] == epoch
    assert (second.welcome["got"], second.welcome["resumed"]) == (1, True)
    assert claims.told.take(3) == ["join", "drop", "resume"]


def test_a_replayed_token_is_refused(claims: Claims) -> None:
    """Once the client has confirmed its welcome only the next one counts; who comes
    with the old one touches nothing."""
    first = claims.welcomed(0)
    thief = claims.client(0, epoch=first.welcome["epoch"])
    refusal = claims.expect_refusal(thief)
    assert refusal["code"] == "unauthorized"
    claims.check(first, b"still here")
    second = claims.client(1, got=2)
    claims.check(second, b"I am she")
    first.expect_cut()
    assert claims.expect_refusal(claims.client(0))["code"] == "unauthorized"
    assert claims.expect_refusal(claims.client(1))["code"] == "unauthorized"
    assert claims.expect_refusal(claims.client(3))["code"] == "unauthorized"
    claims.check(second, b"still here")
    assert claims.told.take(3) == ["join", "drop", "resume"]
    assert not len(claims.told)


def test_both_tokens_count_until_a_welcome_is_confirmed(claims: Claims) -> None:
    """So no answer that is lost on its way locks a client out."""
    unheard = claims.client(0, listens=False)  # so it confirms nothing
    assert claims.told.next() == "join"
    unheard.close()
    assert claims.told.next() == "drop"
    again = claims.client(0, listens=False)
    assert claims.told.next() == "resume"
    again.close()
    assert claims.told.next() == "drop"
    third = claims.client(1)
    claims.check(third)
    assert third.welcome["resumed"]
    assert claims.told.next() == "resume"
    assert claims.expect_refusal(claims.client(0))["code"] == "unauthorized"
    claims.check(third, b"still here")


def test_the_newest_link_of_a_session_is_the_one(claims: Claims) -> None:
    """Its older one is closed without a goodbye, whether or not it was dead."""
    links = [claims.welcomed(0)]
    for place in (1, 2, 3):
        links.append(claims.client(place, got=place))
        claims.check(links[-1], b"%d" % place)
        links[-2].expect_cut()
        assert links[-1].welcome["resumed"]
    assert len(claims.server) == 1
    assert claims.told.take(7) == ["join", *["drop", "resume"] * 3]
    assert not len(claims.told)


def test_who_has_what_was_never_sent_is_refused(claims: Claims) -> None:
    """Or what was acknowledged long ago; the session is not harmed by that."""
    first = claims.welcomed(0)
    for number in range(2):
        claims.check(first, b"%d" % number)
    refusal = claims.expect_refusal(claims.client(1, got=99))
    assert refusal["code"] == "protocol"
    assert "99" in refusal["text"]
    claims.check(first, b"still here")
    second = claims.client(1, got=4)
    claims.check(second)
    assert second.welcome["resumed"]


def test_what_was_not_received_comes_again(claims: Claims) -> None:
    """From the number on that the hello names, each once and in order."""
    first = claims.welcomed(0)
    first.send(*(b"echo %d" % number for number in range(5)))
    assert first.take(5) == [b"it %d" % number for number in range(5)]
    first.close()
    second = claims.client(1, got=3)
    claims.check_all(second, [b"it 2", b"it 3", b"it 4"])
    claims.check(second)
    second.close()
    third = claims.client(2, got=7)
    claims.check(third)
    assert third.welcome["got"] == 7


@pytest.mark.parametrize("epoch", ["known", "another"])
def test_a_session_that_is_not_there(claims: Claims, epoch: str) -> None:
    """A hello with a session that nobody knows has a new one, and hears why."""
    known = claims.welcomed(0).welcome["epoch"]
    other = {**claim(0, 7, known if epoch == "known" else "beef"), "sid": "f" * 32}
    peer = claims.net.raw_client(claims.server, "bea", claim=other)
    assert isinstance(peer, RawCompact)
    claims.check(peer)
    assert peer.welcome["sid"] == "f" * 32
    assert not peer.welcome["resumed"]
    expected = "unknown" if epoch == "known" else "server_restarted"
    assert peer.welcome["reason"] == expected


def test_who_was_disconnected_is_refused(claims: Claims) -> None:
    """By its session, whatever it calls itself."""
    first = claims.welcomed(0)
    claims.server.disconnect_client("ann")
    assert first.receive() == b"$DISCONN$"
    first.close()
    refusal = claims.expect_refusal(claims.client(1, got=1))
    assert refusal["code"] == "kicked"
    assert refusal["retry"] is None
    assert claims.told.take(2) == ["join", "leave"]
    assert len(claims.server) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sid", "xyz"),
        ("sid", 5),
        ("token", "a" * 63),
        ("token", None),
        ("next", "A" * 64),
        ("got", -1),
        ("got", "1"),
        ("window", -1),
        ("window", "long"),
        ("epoch", 7),
        ("epoch", "e" * 1000),
    ],
)
def test_a_hello_with_a_broken_session_is_none(
    claims: Claims, key: str, value: object
) -> None:
    """Its client is not let in, and the session of another is not harmed."""
    first = claims.welcomed(0)
    peer = claims.net.raw_client(claims.server, "x", claim={**claim(1), key: value})
    peer.expect_end()
    claims.check(first, b"still here")
    assert claims.told.next() == "join"
    assert not len(claims.told)
