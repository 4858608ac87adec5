"""Messages that their sender allowed to be dropped: whatever happens, order and counts
hold."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, Literal, TypeAlias

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hisock.hub.loose import Loose, LooseFrames
from hisock.hub.outbox import Outbox
from hisock.session.resume import Replay, length_of
from hisock.wire import compact
from hisock.wire.frames import Gap, Pong

BOUND: Final = 400
START: Final = 100.0
_WRITER: Final = compact.Writer(0)

Policy: TypeAlias = Literal["firm", "drop_oldest", "drop_newest", "latest"]
Sent: TypeAlias = tuple[Policy, str | None, str | None, int]

policies = st.sampled_from(["firm", "drop_oldest", "drop_newest", "latest"])
sends = st.tuples(
    st.just("send"),
    policies,
    st.sampled_from([None, "red", "blue"]),
    st.sampled_from([None, "a", "b"]),
    st.integers(0, 150),
)
steps = st.one_of(
    sends,
    st.tuples(st.just("write"), st.integers(1, 300)),
    st.tuples(st.just("ack"), st.integers(0, 20)),
    st.just(("pong",)),
    st.just(("cut",)),
    st.just(("look",)),
)


def encode_gap(count: int, group: str | None) -> bytes:
    """A gap as it is on the wire."""
    return compact.encode(Gap(count, group))


def tell_nothing(count: int, group: str | None) -> bytes:
    """What the wire of 1.1 has for it."""
    return b""


class Sender:
    """An outbox, what was put into it, and what a peer that reads would have.

    Args:
        has_session: Whether what is written is kept until it is acknowledged.
        is_told: Whether the wire has a word for gaps.
    """

    def __init__(self, *, has_session: bool, is_told: bool) -> None:
        self.outbox = Outbox(BOUND)
        if has_session:
            self.outbox.replay = Replay()
        self._encode_gap = encode_gap if is_told else tell_nothing
        self.is_told = is_told
        #: By number: how each was sent.
        self.sent: list[Sent] = []
        self.written = bytearray()
        #: Bytes that the peer has, of links that are gone.
        self.received = bytearray()
        self.got = 0

    def send(self, policy: Policy, group: str | None, key: str | None, n: int) -> None:
        """Put the next message in."""
        number = len(self.sent)
        frame = _WRITER.message("it", [number, bytes(n)])
        assert isinstance(frame, bytes)
        outbox = self.outbox
        self.sent.append((policy, group, key, number))
        # As ``Post.offer``: while there is room nothing is loose.
        if policy == "firm" or not (outbox.size or outbox.is_full):
            self.sent[-1] = ("firm", group, key, number)
            outbox.append(frame)
            return
        before = outbox.size
        outbox.add_loose(
            frame,
            self._encode_gap,
            slot=("it", key) if policy == "latest" else None,
            group=group,
            drops_newest=policy == "drop_newest",
        )
        assert outbox.size <= before + len(frame) + len(encode_gap(9, group))

    def write(self, most: int) -> None:
        """Write up to so many bytes."""
        while self.outbox.size and most > 0:
            part = bytes(self.outbox.head())[:most]
            assert part
            self.outbox.advance(len(part), START)
            self.written += part
            most -= len(part)

    def acknowledge(self, count: int) -> None:
        """The peer has had up to so many more frames, as far as they were written."""
        replay = self.outbox.replay
        if replay is not None:
            arrived = self.got + _count(self.written)
            replay.acknowledge(min(replay.acked + count, arrived))

    def cut(self) -> None:
        """The link is gone, with a frame half written perhaps; go on with another."""
        replay = self.outbox.replay
        if replay is None:
            return
        whole = _whole(self.written)
        self.received += whole
        self.got += _count(whole)
        self.written.clear()
        self.outbox.cut()
        replay.acknowledge(self.got)
        self.outbox.resume(replay.again())

    def check(self) -> None:
        """What holds after every step."""
        outbox = self.outbox
        assert outbox.size >= 0
        assert outbox.held >= 0
        queued = sum(map(length_of, outbox.frames or ()))
        assert outbox.size == queued + sum(map(len, outbox._rest or ()))
        assert len(outbox.frames or ()) < 2 * len(self.sent) + 70

    def finish(self) -> list[Any]:
        """What the peer has in the end: numbers, and gaps."""
        self.write(1 << 30)
        assert self.outbox.size == 0
        assert not self.outbox.waiting()
        came: list[Any] = []
        for array in _arrays(self.received + self.written):
            match array:
                case [1, "it", [int() as number, _]]:
                    came.append(number)
                case [14, int() as count, group]:
                    came.append(Gap(count, group))
        return came


def _arrays(data: bytes | bytearray) -> list[Any]:
    """Every frame of a stream, which has to be whole."""
    found = []
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        assert end <= len(data), "a frame is cut short"
        found.append(msgspec.msgpack.decode(data[at + 4 : end]))
        at = end
    return found


def _whole(data: bytearray) -> bytearray:
    """As much of a stream as is whole frames."""
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        at = end
    return data[:at]


def _count(data: bytearray) -> int:
    """How many frames of a stream have numbers."""
    return sum(array[0] < 32 for array in _arrays(_whole(data)))


def run(sender: Sender, script: list[tuple[Any, ...]]) -> list[Any]:
    """Play a script, look after each step, and return what came."""
    for step in script:
        match step:
            case ("send", policy, group, key, size):
                sender.send(policy, group, key, size)
            case ("write", most):
                sender.write(most)
            case ("ack", count):
                sender.acknowledge(count)
            case ("pong",):
                sender.outbox.put_first(compact.encode(Pong(1)))
            case ("cut",):
                sender.cut()
            case ("look",):
                if sender.outbox.size:
                    sender.outbox.head()
        sender.check()
    return sender.finish()


@settings(max_examples=400, deadline=None)
@given(script=st.lists(steps, max_size=60), has_session=st.booleans())
def test_order_and_counts_hold(
    script: list[tuple[Any, ...]], has_session: bool
) -> None:
    """What comes out is in order and once; gaps count exactly what was dropped."""
    sender = Sender(has_session=has_session, is_told=True)
    came = run(sender, script)

    numbers = [item for item in came if isinstance(item, int)]
    assert numbers == sorted(set(numbers))
    missing = [sent for sent in sender.sent if sent[3] not in set(numbers)]
    assert not [sent for sent in missing if sent[0] == "firm"]
    dropped = Counter(
        group for policy, group, _, _ in missing if policy.startswith("drop")
    )
    told: Counter[str | None] = Counter()
    for item in came:
        if isinstance(item, Gap):
            assert item.count > 0
            told[item.group] += item.count
    assert told == dropped
    _check_places(came, sender.sent)
    _check_states(set(numbers), sender.sent)


def _check_places(came: list[Any], sent: list[Sent]) -> None:
    """No gap stands before a message that is older, or behind one that is newer, than
    all that it could stand for."""
    after = -1
    for place, item in enumerate(came):
        if isinstance(item, int):
            after = item
            continue
        following = (n for n in came[place:] if isinstance(n, int))
        before = next(following, len(sent))
        could = [
            number
            for policy, group, _, number in sent
            if after < number < before
            and group == item.group
            and policy.startswith("drop")
        ]
        assert len(could) >= item.count


def _check_states(numbers: set[int], sent: list[Sent]) -> None:
    """The newest of each key arrives, whatever else does."""
    newest = {key: number for policy, _, key, number in sent if policy == "latest"}
    for number in newest.values():
        assert number in numbers


@settings(max_examples=200, deadline=None)
@given(script=st.lists(steps, max_size=60), has_session=st.booleans())
def test_where_nobody_can_be_told_order_holds(
    script: list[tuple[Any, ...]], has_session: bool
) -> None:
    """On a wire without gaps what is dropped leaves nothing behind."""
    sender = Sender(has_session=has_session, is_told=False)
    came = run(sender, script)

    assert came == sorted(set(came))
    missing = {sent[3] for sent in sender.sent} - set(came)
    assert not [s for s in sender.sent if s[3] in missing and s[0] == "firm"]


@settings(max_examples=100, deadline=None)
@given(script=st.lists(sends, min_size=30, max_size=60))
def test_a_peer_that_takes_nothing_costs_a_bounded_amount(
    script: list[tuple[Any, ...]],
) -> None:
    """Loose messages never take more than the bound and one message."""
    sender = Sender(has_session=False, is_told=True)
    sender.send("firm", None, None, 10)
    largest = len(encode_gap(999, "blue"))
    for _, policy, group, key, size in script:
        if policy != "firm":
            sender.send(policy, group, key, size)
    states = 3 * 200
    gaps = largest * len(script)
    assert sender.outbox.size <= BOUND + states + 200 + gaps


def test_adjacent_drops_are_one_gap() -> None:
    """And those of another group another."""
    frames = LooseFrames(encode_gap)
    last: Loose | None = None
    entries = []
    for group in ("red", "red", "red", "blue", "red"):
        last, _ = frames.add(b"x" * 50, None, group, last)
        entries.append(last)
    for _ in entries:
        frames.drop_oldest()

    gaps = [frames.took(entry) for entry in entries]

    assert [gap for gap in gaps if gap] == [
        encode_gap(3, "red"),
        encode_gap(1, "blue"),
        encode_gap(1, "red"),
    ]
    assert frames.drop_oldest() is None


def test_dropping_says_how_much_less_waits() -> None:
    """What the gap takes is counted, too."""
    frames = LooseFrames(encode_gap)
    first, _ = frames.add(b"x" * 50, None, None, None)
    second, _ = frames.add(b"y" * 70, None, None, first)

    less = [frames.drop_oldest(), frames.drop_oldest()]

    one, two = len(encode_gap(1, None)), len(encode_gap(2, None))
    assert less == [50 - one, 70 + one - two]
    assert (len(first), len(second)) == (0, two)


def test_a_state_takes_the_place_of_the_one_before() -> None:
    """The old one says how much less waits, and leaves nothing to write."""
    frames = LooseFrames(encode_gap)
    old, saved = frames.add(b"x" * 50, "slot", None, None)
    assert saved == 0
    new, saved = frames.add(b"y" * 70, "slot", None, old)

    assert saved == 50
    assert frames.took(old) == b""
    assert frames.took(new) == b"y" * 70
    assert frames.add(b"z", "slot", None, None)[1] == 0


def test_a_new_gap_joins_the_last_one_of_its_group() -> None:
    """Nothing is added then but its count."""
    frames = LooseFrames(encode_gap)
    entry, more = frames.gap("red", b"a firm one")
    assert entry is not None
    assert more == len(encode_gap(1, "red"))

    assert frames.gap("red", entry)[0] is None
    other, _ = frames.gap("blue", entry)

    assert frames.took(entry) == encode_gap(2, "red")
    assert other is not None


def test_what_is_gone_does_not_wait() -> None:
    """On a wire without gaps: neither what was dropped when it came, nor what a newer
    one took the place of."""
    outbox = Outbox(BOUND)
    first = _WRITER.message("it", b"1" * BOUND)
    assert isinstance(first, bytes)
    outbox.append(first)
    outbox.add_loose(b"newest", tell_nothing, drops_newest=True)
    assert outbox.waiting() == [first]

    for state in (b"old", b"new"):
        outbox.add_loose(state, tell_nothing, slot="state")
    assert outbox.waiting() == [first, b"new"]
    assert outbox.size == len(first) + len(b"new")
