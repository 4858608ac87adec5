"""What the other side has of what was sent, what to send again, and who may ask."""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import NoneType
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hisock.errors import RemoteProtocolError
from hisock.session.resume import (
    ACK_DELAY,
    ACK_FRAMES,
    ACK_SIZE,
    Block,
    Replay,
    Session,
    Tokens,
    Written,
    length_of,
    numbered,
)
from hisock.wire import compact
from hisock.wire.frames import Ack, Bye, Ping, Pong

from .talk import START, joined

#: Clients in other languages count in doubles (F48).
HUGE: Final = 2**53
PONG: Final = compact.encode(Pong(1))
ACK: Final = compact.encode(Ack(5))


def message(number: int) -> bytes:
    """A small message as it is on the wire."""
    frame = compact.Writer(0).message("a", number)
    assert isinstance(frame, bytes)
    return frame


def block(*numbers: int) -> Block:
    """Several of these, written together."""
    return Block(len(numbers), b"".join(map(message, numbers)))


def parts(number: int) -> tuple[bytes, ...]:
    """One of these, as a large one is written."""
    whole = message(number)
    return whole[:5], whole[5:]


def noted(*written: Written) -> Replay:
    """A replay of all this."""
    replay = Replay()
    for one in written:
        replay.note(one)
    return replay


def again(replay: Replay) -> bytes:
    """What is written once more, in one piece."""
    return b"".join(map(joined, replay.again()))


def messages(*numbers: int) -> bytes:
    """So many messages on the wire."""
    return b"".join(map(message, numbers))


# --- what was sent ---------------------------------------------------------------


def test_at_first_nothing_was_sent() -> None:
    """The first frame will be number 1; nothing is to be sent again."""
    replay = Replay()

    assert (replay.acked, replay.last, replay.size, replay.blocks) == (0, 0, 0, None)
    assert (replay.again(), [*replay.frames()]) == ([], [])


def test_an_idle_replay_costs_little() -> None:
    """Nothing is kept for a connection that sends nothing, before and after."""
    replay, used = Replay(), noted(block(1, 2))
    used.acknowledge(2)
    for idle in (replay, used):
        held = {type(one) for one in gc.get_referents(idle)}
        assert held <= {type, int, NoneType}


@pytest.mark.parametrize(
    ("written", "count"),
    [(message(1), 1), (parts(1), 1), (block(1, 2, 3), 3), (Block(1, PONG), 1)],
)
def test_what_is_noted_has_its_numbers(written: Written, count: int) -> None:
    """A frame, one in parts and a block: each is kept as it went out."""
    replay = noted(message(0), written)

    assert replay.last == 1 + count
    assert replay.size == len(message(0)) + length_of(written)
    assert again(replay) == message(0) + (
        written.data if isinstance(written, Block) else joined(written)
    )


def test_what_was_not_written_has_no_number() -> None:
    """Where there was no room at all the frame is taken back; the one before stays."""
    replay = noted(block(1, 2), message(3))
    replay.take_back()

    assert (replay.last, replay.size) == (2, len(messages(1, 2)))
    replay.note(message(4))
    assert again(replay) == messages(1, 2, 4)
    assert replay.last == 3


def test_the_only_one_is_taken_back() -> None:
    """After it nothing was sent."""
    replay = noted(message(1))
    replay.take_back()

    assert (replay.last, replay.size, replay.again()) == (0, 0, [])
    with pytest.raises(RemoteProtocolError):
        replay.acknowledge(1)


@pytest.mark.parametrize("upto", range(8))
def test_what_is_acknowledged_is_not_sent_again(upto: int) -> None:
    """What is sent again begins exactly behind the last frame that came."""
    replay = noted(message(1), block(2, 3, 4), parts(5), block(6, 7))
    replay.acknowledge(upto)

    assert again(replay) == messages(*range(upto + 1, 8))
    assert [*replay.frames()] == [message(n)[4:] for n in range(upto + 1, 8)]
    assert (replay.acked, replay.last) == (upto, 7)


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_acknowledgements_come_bit_by_bit(step: int) -> None:
    """Several in the middle of one block add up."""
    replay = noted(block(*range(1, 10)), block(*range(10, 16)), message(16))
    for upto in range(0, 17, step):
        replay.acknowledge(upto)
        assert again(replay) == messages(*range(upto + 1, 17))
        assert replay.last == 16


def test_a_block_is_held_until_its_last_frame_has_come() -> None:
    """Nothing is copied for an acknowledgement in the middle of it."""
    replay = noted(block(1, 2, 3))
    size = replay.size
    sizes = []
    for upto in (1, 2, 3):
        replay.acknowledge(upto)
        sizes.append(replay.size)

    assert sizes == [size, size, 0]
    assert replay.blocks is None


@pytest.mark.parametrize("upto", [0, 1, 2, 3])
def test_an_old_acknowledgement_says_nothing_new(upto: int) -> None:
    """They are cumulative; one that comes twice, or late, changes nothing."""
    replay = noted(block(1, 2, 3, 4, 5))
    replay.acknowledge(3)
    replay.acknowledge(upto)

    assert (replay.acked, replay.last) == (3, 5)
    assert again(replay) == messages(4, 5)


@pytest.mark.parametrize(("acked", "upto"), [(0, 4), (2, 5), (3, 4), (3, 2**53)])
def test_what_was_not_sent_cannot_have_come(acked: int, upto: int) -> None:
    """Such an acknowledgement is a violation, and the text names both numbers."""
    replay = noted(block(1, 2), message(3))
    replay.acknowledge(acked)
    told = f"frame {upto} was acknowledged, the last sent is 3"

    with pytest.raises(RemoteProtocolError) as caught:
        replay.acknowledge(upto)
    assert str(caught.value) == told


def test_a_wrong_acknowledgement_changes_nothing() -> None:
    """What it was about is still known, so that it can be reported."""
    replay = noted(block(1, 2), message(3))
    replay.acknowledge(1)
    with pytest.raises(RemoteProtocolError):
        replay.acknowledge(4)

    assert (replay.acked, replay.last) == (1, 3)
    assert [*replay.frames()] == [message(n)[4:] for n in (2, 3)]


def test_what_has_no_number_is_not_counted() -> None:
    """Acks, pings, pongs and goodbyes in a block stand between numbered frames."""
    ping, bye = compact.encode(Ping(2)), compact.encode(Bye())
    data = PONG + message(1) + ACK + ping + message(2) + PONG + message(3) + bye
    replay = noted(Block(3, data), message(4))
    told = []
    for upto in range(4):
        replay.acknowledge(upto)
        told.append([*replay.frames()])
        frames = [*compact.cut_frames(again(replay))]
        assert [f for f in frames if f[1] == 1] == told[-1]

    assert told == [[message(n)[4:] for n in range(k, 5)] for k in (1, 2, 3, 4)]
    assert replay.last == 4
    assert again(replay) == message(4)


def test_only_the_first_block_is_cut() -> None:
    """An acknowledgement in the middle of it leaves all others as they went out."""
    replay = noted(block(1, 2, 3), block(4, 5, 6))
    replay.acknowledge(2)

    assert replay.again() == [message(3), messages(4, 5, 6)]
    replay.acknowledge(4)
    assert replay.again() == [messages(5, 6)]


@pytest.mark.parametrize("acked", [HUGE - 1, HUGE, HUGE + 1, 2**64])
def test_no_number_is_too_large(acked: int) -> None:
    """Beyond what a double holds the count is as exact as before (F48)."""
    replay = noted(block(1, 2, 3), message(4))
    replay.acked = acked
    lasts = [replay.last]
    replay.acknowledge(acked + 2)
    lasts.append(replay.last)

    assert lasts == [acked + 4] * 2
    assert again(replay) == messages(3, 4)
    with pytest.raises(RemoteProtocolError, match=f"the last sent is {acked + 4}"):
        replay.acknowledge(acked + 5)


def test_to_forget_is_to_begin_anew() -> None:
    """After ``clear`` the next frame is number 1."""
    replay = noted(block(1, 2, 3))
    replay.acknowledge(2)
    replay.clear()
    fresh = (replay.acked, replay.last, replay.size, replay.blocks)
    replay.note(block(1, 2))

    assert fresh == (0, 0, 0, None)
    replay.acknowledge(1)
    assert (replay.last, again(replay)) == (2, message(2))


def test_the_numbered_frames_of_what_waits() -> None:
    """Without their headers; what has no number is left out."""
    mixed = Block(2, PONG + message(1) + ACK + message(2))

    assert [*numbered(mixed)] == [message(1)[4:], message(2)[4:]]
    assert [*numbered(parts(3))] == [message(3)[4:]]
    assert [*numbered(PONG)] == []


written = st.one_of(
    st.just(message),
    st.just(parts),
    st.integers(1, 5).map(lambda n: lambda at: block(*range(at, at + n))),
    st.integers(1, 5).map(
        lambda n: (
            lambda at: Block(
                n, PONG + b"".join(message(k) + ACK for k in range(at, at + n))
            )
        )
    ),
)
replay_steps = st.lists(
    st.tuples(st.just("note"), written)
    | st.tuples(st.just("take back"), written)
    | st.tuples(st.just("acknowledge"), st.integers(0, 6)),
    max_size=30,
)


@given(replay_steps)
def test_whatever_is_noted_and_acknowledged(
    steps: list[tuple[str, Callable[[int], Written] | int]],
) -> None:
    """What is sent again is always what was noted and not acknowledged, in order."""
    replay = Replay()
    acked = last = 0
    for step, value in steps:
        if isinstance(value, int):
            acked = min(last, acked + value)
            replay.acknowledge(acked)
        else:
            replay.note(value(last + 1))
            if step == "note":
                last = replay.last
            else:
                replay.take_back()
        assert (replay.acked, replay.last) == (acked, last)
        left = range(acked + 1, last + 1)
        assert [*replay.frames()] == [message(number)[4:] for number in left]
        assert (replay.size == 0) is (acked == last)
        assert replay.size >= 0


# --- what came -------------------------------------------------------------------


def session() -> Session:
    """A new one."""
    return Session("5" * 32, 30.0)


def test_a_session_begins_with_nothing() -> None:
    """Nothing came, nothing was sent, nobody has answered yet."""
    new = session()

    assert (new.sid, new.window, new.epoch, new.tokens) == ("5" * 32, 30.0, "", None)
    assert (new.received, new.owes, new.replay.last) == (0, False, 0)


def test_what_came_is_owed_until_it_is_told() -> None:
    """The acknowledgement names the last frame, once."""
    one = session()
    one.receive(3, 100, START)
    owed = [one.owes]
    told = [one.tell()]
    owed.append(one.owes)
    one.receive(2, 100, START)
    owed.append(one.owes)
    told.append(one.tell())

    assert (owed, told) == ([True, False, True], [3, 5])


def test_64_frames_are_acknowledged_at_once() -> None:
    """In one read or in many; before that nobody is in a hurry."""
    assert ACK_FRAMES == 64
    one, many = session(), session()

    assert [one.receive(63, 0, START), one.receive(1, 0, START)] == [False, True]
    one.tell()
    assert one.receive(64, 0, START)
    due = [many.receive(1, 1, START) for _ in range(64)]
    assert due == [False] * 63 + [True]
    many.tell()
    assert not many.receive(63, 1, START)


def test_64_kib_are_acknowledged_at_once() -> None:
    """However few frames they are."""
    assert ACK_SIZE == 64 * 1024
    one = session()

    due = [one.receive(1, size, START) for size in (1, 65_534, 1)]
    one.tell()
    due += [one.receive(1, size, START) for size in (65_535, 1)]

    assert due == [False, False, True, False, True]


def test_a_large_frame_is_acknowledged_at_once() -> None:
    """All its bytes count, though only the last read of it brings a frame."""
    one = session()
    for _ in range(15):
        one.receive(0, 64 * 1024, START)

    assert one.receive(1, 100, START)


def test_after_a_while_little_is_acknowledged_too() -> None:
    """With the first read 0.2 s after the first frame of which nobody was told."""
    assert ACK_DELAY == 0.2
    one = session()

    due = [one.receive(1, 1, START + late) for late in (0.0, 0.1, 0.19, 0.2, 0.3)]
    assert due == [False, False, False, True, True]
    one.tell()
    due = [one.receive(1, 1, START + late) for late in (0.3, 0.4, 0.5)]
    assert due == [False, False, True]


def test_a_read_without_a_whole_frame_is_a_chance_too() -> None:
    """What came before a large message is not held up by it: its time and its bytes
    count with every read."""
    late, large = session(), session()
    late.receive(1, 1, START)
    large.receive(1, 1, START)

    assert [late.receive(0, 9, START + t) for t in (0.1, 0.2)] == [False, True]
    assert large.receive(0, 64 * 1024, START)


def test_the_delay_counts_from_the_first_frame() -> None:
    """Not from when the last acknowledgement was, nor from a read without a frame."""
    one = session()
    one.receive(0, 10, START)

    assert not one.receive(1, 1, START + 1000)
    assert (one.owed_since, one.owes) == (START + 1000, True)
    one.receive(1, 1, START + 1000.1)
    assert one.owed_since == START + 1000


def test_what_has_no_number_is_not_acknowledged() -> None:
    """Pings alone are owed nothing, however many bytes they are."""
    one = session()
    one.receive(0, 10**6, START)

    assert (one.owes, one.received, one.tell()) == (False, 0, 0)


@pytest.mark.parametrize("received", [HUGE - 1, HUGE, 2**64])
def test_no_count_is_too_large(received: int) -> None:
    """Beyond what a double holds the count is as exact as before (F48)."""
    one = session()
    one.received = one.told = received

    assert not one.receive(1, 1, START)
    assert (one.owes, one.tell()) == (True, received + 1)


def test_what_comes_anew_counts_from_1() -> None:
    """Where the server knows nothing of the session nothing is owed to it, either;
    what was sent is still there to be reported."""
    one = session()
    one.receive(5, 70_000, START)
    one.tell()
    one.receive(1, 70_000, START)
    one.replay.note(block(1, 2))
    one.receive_anew()

    assert (one.received, one.owes, one.replay.last) == (0, False, 2)
    assert not one.receive(1, 1, START + 5)
    assert (one.sid, one.tell()) == ("5" * 32, 1)


@given(st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70_000)), max_size=30))
def test_what_is_owed_stays_small(reads: list[tuple[int, int]]) -> None:
    """Who acknowledges when it is due never owes 64 frames, nor 64 KiB of frames."""
    one = session()
    owed = 0
    for count, size in reads:
        if one.receive(count, size, START):
            one.tell()
        owed = 0 if not one.owes else owed + size
        assert one.received - one.told < ACK_FRAMES
        assert owed < ACK_SIZE
    assert one.received == sum(count for count, _ in reads)


# --- who may go on with it -------------------------------------------------------


def flip(token: bytes) -> bytes:
    """A digest, for tests."""
    return token[::-1]


class Comparison:
    """Compares, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, one: bytes, other: bytes) -> bool:
        self.times += 1
        return one == other


@pytest.fixture
def compare() -> Comparison:
    """How two digests are compared."""
    return Comparison()


@pytest.fixture
def tokens(compare: Comparison) -> Tokens:
    """What a server keeps after the first hello."""
    return Tokens(flip, compare, "one", "two")


def admitted(tokens: Tokens) -> list[str]:
    """Which secrets are good."""
    known = ("one", "two", "three", "four", "eno", "", "o\u00f1e", "two\0")
    return [token for token in known if tokens.admits(token)]


def test_both_are_good_until_the_client_has_heard(tokens: Tokens) -> None:
    """So a client whose welcome was lost comes back with the token it still has."""
    assert admitted(tokens) == ["one", "two"]


def test_then_only_the_next_is_good(tokens: Tokens) -> None:
    """An old token is worth nothing once the client has confirmed; once is enough."""
    tokens.confirm()
    once = admitted(tokens)
    tokens.confirm()

    assert once == admitted(tokens) == ["two"]


def test_each_hello_brings_the_next(tokens: Tokens) -> None:
    """After a resume the one it was made with and its next are good, no other."""
    tokens.confirm()
    tokens.offer("two", "three")
    steps = [admitted(tokens)]
    tokens.confirm()
    steps.append(admitted(tokens))
    tokens.offer("three", "four")
    steps.append(admitted(tokens))

    assert steps == [["two", "three"], ["three"], ["three", "four"]]


def test_a_resume_without_an_answer_is_made_again(tokens: Tokens) -> None:
    """A client that never hears a welcome says the same hello, as often as it must."""
    for _ in range(5):
        assert admitted(tokens) == ["one", "two"]
        tokens.offer("one", "two")


def test_only_digests_are_kept(tokens: Tokens) -> None:
    """Who reads the server's memory cannot go on with anybody's session."""
    assert tokens._good == (b"eno", b"owt")


def test_every_good_one_is_compared(tokens: Tokens, compare: Comparison) -> None:
    """The time of the answer does not tell which one was meant."""
    counts = []
    for token in ("one", "two", "forged"):
        before = compare.times
        tokens.admits(token)
        counts.append(compare.times - before)

    assert counts == [2, 2, 2]
