"""The promise: through any number of cuts, exactly once and in order, both ways."""

from __future__ import annotations

from zlib import crc32

import pytest

from .__main__ import main
from .cuts import KINDS, SILENT, schedule
from .faces import CLIENTS, SERVERS
from .oracle import Plan, prove
from .toy import toy_client, toy_server
from .traffic import Traffic

PAIRS = [(server, client) for server in SERVERS for client in CLIENTS]


def message(number: int, payload: bytes = b"x") -> list[object]:
    """A message as it is sent."""
    return [number, crc32(payload, number), payload]


@pytest.fixture
def traffic() -> Traffic:
    """Four messages each way."""
    return Traffic(8, 0, seed=1)


# --- the oracle itself -----------------------------------------------------------


def test_the_book_of_what_came_as_it_should_is_clean(traffic: Traffic) -> None:
    """All of it, in order, then the end."""
    book = traffic.books["up"]
    for content in traffic.messages("up"):
        book.take(content)
    book.end(4)

    assert (book.received, book.lost, book.has_ended) == (4, 0, True)
    assert not traffic.failures


@pytest.mark.parametrize(
    ("numbers", "lost", "duplicated", "out_of_order"),
    [
        ([1, 2, 4], 1, 0, 0),
        ([1, 2, 3], 1, 0, 0),
        ([], 4, 0, 0),
        ([1, 2, 2, 3, 4], 0, 1, 0),
        ([1, 2, 3, 4, 1], 0, 1, 0),
        ([1, 3, 2, 4], 0, 0, 1),
        ([1, 3, 2, 2, 4], 0, 1, 1),
        ([2, 3, 4], 1, 0, 0),
        ([4, 3, 2, 1], 0, 0, 3),
    ],
)
def test_the_book_sees_what_is_wrong(
    traffic: Traffic, numbers: list[int], lost: int, duplicated: int, out_of_order: int
) -> None:
    """Lost, doubled and overtaken messages are told apart and counted."""
    book = traffic.books["down"]
    for number in numbers:
        book.take(message(number))
    book.end(4)

    assert (book.lost, book.duplicated, book.out_of_order) == (
        lost,
        duplicated,
        out_of_order,
    )
    assert traffic.failures


@pytest.mark.parametrize(
    "content",
    [[1, 0, b"x"], message(2, b"x")[:1] + message(1)[1:], "1", None, [1, 2]],
)
def test_the_book_sees_what_is_not_what_was_sent(
    traffic: Traffic, content: object
) -> None:
    """The checksum is of number and payload."""
    traffic.books["up"].take(content)

    assert traffic.books["up"].corrupt == 1
    assert traffic.failures


def test_nothing_may_come_after_the_end(traffic: Traffic) -> None:
    """What comes after it is counted as doubled; the end itself comes once."""
    book = traffic.books["up"]
    for content in traffic.messages("up"):
        book.take(content)
    book.end(4)
    book.take(message(5))
    book.end(4)

    assert book.duplicated == 1
    assert len(traffic.failures) == 2


def test_the_end_tells_how_many_came_before_it(traffic: Traffic) -> None:
    """An end that comes too early is a failure."""
    traffic.books["up"].end(4)

    assert traffic.failures
    assert traffic.books["up"].lost == 4


def test_messages_and_cuts_are_those_of_the_seed() -> None:
    """A run can be repeated: the same seed gives the same, another another."""
    first, again, other = (list(Traffic(99, 0, n).messages("up")) for n in (1, 1, 2))

    assert first == again != other
    assert len(first) == 49
    assert schedule(1, 20, 2) == schedule(1, 20, 2) != schedule(2, 20, 2)


def test_a_schedule_has_every_kind() -> None:
    """So many, and so many of those that only silence tells."""
    kinds = [cut.kind for cut in schedule(1, 4 * len(KINDS), 3)]

    assert len(kinds) == 4 * len(KINDS)
    assert set(kinds) >= set(KINDS)
    assert len([kind for kind in kinds if kind in SILENT]) == 3


def test_senders_wait_for_the_cuts() -> None:
    """Something is left to send until the last cut was made."""
    traffic = Traffic(1000, 4, seed=1)
    for stage in range(4):
        assert not traffic.may_send(500)
        for number in range(100 * stage + 1, 100 * (stage + 1) + 1):
            assert traffic.may_send(number)
            assert not traffic.may_send(number + 200)
            for book in traffic.books.values():
                book.take(message(number))
        assert traffic.wait_for_stage()
        traffic.open_stage(stage + 1)

    assert traffic.may_send(500)
    assert not traffic.failures


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server and a client that are not hisock."""
    monkeypatch.setitem(SERVERS, "toy", toy_server)
    monkeypatch.setitem(CLIENTS, "toy", toy_client)


@pytest.mark.usefixtures("toys")
def test_who_resumes_passes() -> None:
    """Every kind of cut can be survived, so what fails is not the proof."""
    plan = Plan(1000, 12, 1, "toy", "toy", silences=2, options={"replays": True})

    outcome = prove(plan)

    assert outcome.is_clean, outcome
    assert outcome.received == 1000
    assert outcome.cuts >= 12


@pytest.mark.usefixtures("toys")
def test_who_only_reconnects_is_found_out() -> None:
    """It passes without cuts; with one, what was under way is missed."""
    options = {"replays": False}
    assert prove(Plan(1000, 0, 1, "toy", "toy", options=options)).is_clean

    outcome = prove(Plan(1000, 3, 1, "toy", "toy", stall=2.0, options=options))

    assert not outcome.is_clean
    assert outcome.lost


# --- what it proves --------------------------------------------------------------


def expect_all(plan: Plan) -> None:
    """Every message came exactly once and in order, through as many cuts as planned."""
    outcome = prove(plan)

    assert outcome.is_clean, outcome
    assert (outcome.sent, outcome.received) == (plan.messages, plan.messages), outcome
    assert outcome.cuts >= plan.cuts, outcome
    assert outcome.reconnects >= plan.cuts, outcome


@pytest.mark.parametrize(("server", "client"), PAIRS)
def test_every_message_arrives_without_cuts(server: str, client: str) -> None:
    """Every face with every face, and no fault."""
    expect_all(Plan(2000, server=server, client=client))


@pytest.mark.parametrize(("server", "client"), PAIRS)
def test_every_message_arrives_through_cuts(server: str, client: str) -> None:
    """Every face with every face; each pair meets other cuts."""
    seed = PAIRS.index((server, client))
    expect_all(Plan(600, 4, seed, server, client))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_message_arrives_through_each_kind_of_cut(kind: str) -> None:
    """Three of a kind, one after the other."""
    number = sorted(KINDS).index(kind)
    server, client = PAIRS[number % len(PAIRS)]
    expect_all(Plan(400, 3, number, server, client, kinds=(kind,)))


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", sorted(SILENT))
def test_every_message_arrives_through_silence(kind: str, client: str) -> None:
    """Nobody is told of the cut: it takes ``dead_after`` to find out."""
    server = list(SERVERS)[sorted(SILENT).index(kind)]
    expect_all(Plan(200, 1, 1, server, client, kinds=(kind,), dead_after=1.0))


def test_every_message_arrives_through_cuts_of_a_slow_network() -> None:
    """With 5 ms each way the acknowledgements are as late as those of a city apart."""
    expect_all(Plan(1000, 9, 3, latency=0.005))


def test_every_message_arrives_through_cuts_of_a_dribble() -> None:
    """Frames come in pieces of 100 bytes, so that every cut is in one."""
    expect_all(Plan(300, 4, 4, "aio", "threaded", chunk=100))


def test_the_long_proof_says_what_came_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The seed, the counts, and 0 where all is as promised."""
    arguments = "--messages 200 --cuts 2 --seed 7 --kinds plain --client threaded"

    assert main(arguments.split()) == 0

    printed = capsys.readouterr().out
    assert "seed 7: threaded client, plain server" in printed
    assert "received 200" in printed


def test_the_long_proof_says_what_went_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1, and the seed to see it again."""

    def broken_client(traffic: Traffic, *_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setitem(CLIENTS, "blocking", broken_client)

    assert main(["--messages", "20", "--cuts", "0", "--seed", "7"]) == 1

    printed = capsys.readouterr().out
    assert "! broken_client raised ConnectionRefusedError()" in printed
    assert "FAILED; again with --seed 7" in printed


@pytest.mark.timeout(120)
def test_twenty_thousand_messages_arrive_through_fifty_cuts() -> None:
    """The proof; the long one is ``python -m tests.chaos``."""
    expect_all(Plan(20_000, 50, 20, silences=2, dead_after=1.0))
