"""Calls and streams of one link: ids, answers, credit, ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from tests.spelled import spelled

from hisock.errors import Overloaded, RemoteProtocolError, SessionLost
from hisock.session.requests import WINDOW, Answering, Asked, Requests
from hisock.wire.compact import LARGE, decode, encode, pack
from hisock.wire.frames import (
    Cancel,
    Credit,
    End,
    Failure,
    Item,
    Reply,
    Request,
)

HI = Raw(b"\xa2hi")
LOST = SessionLost("gone")


def request(number: int, *, stream: int = 0) -> Request:
    """A request of the peer."""
    return Request(number, "sum", HI, stream)


def announced(requests: Requests, *numbers: int, stream: int = 0) -> None:
    """Requests of the peer have come, and wait for their turns."""
    for number in numbers:
        requests.announce(request(number, stream=stream))


def taken(requests: Requests, number: int) -> Answering:
    """A request of the peer whose turn has come."""
    answering = requests.begin(number)
    assert answering is not None
    return answering


def begun(requests: Requests, number: int, *, stream: int = 0) -> Answering:
    """A request of the peer that came, and whose turn it was at once."""
    announced(requests, number, stream=stream)
    return taken(requests, number)


def item(asked: Asked, number: int = 0) -> Item:
    """The next item of a stream."""
    return Item(asked.id, Raw(number.to_bytes(1, "big")))


class Waker:
    """Counts how often somebody was woken."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def client() -> Requests:
    """The client's side, without a limit."""
    return Requests(by_client=True, limit=0)


@pytest.fixture
def server() -> Requests:
    """The server's side, without a limit."""
    return Requests(by_client=False, limit=0)


# --- ours ------------------------------------------------------------------------


@pytest.mark.parametrize(("by_client", "ids"), [(True, [1, 3, 5]), (False, [2, 4, 6])])
def test_ids_ascend(by_client: bool, ids: list[int]) -> None:
    """A client's ids are odd, a server's even; calls and streams share them."""
    requests = Requests(by_client=by_client, limit=0)

    asked = [requests.ask("a", is_stream=stream) for stream in (False, True, False)]

    assert ids == [one.id for one in asked]
    assert asked == [*requests.asked.values()]
    assert [one.is_stream for one in asked] == [False, True, False]


def test_an_id_is_never_given_twice(client: Requests) -> None:
    """What is answered, or forgotten, does not free its id."""
    first = client.ask("a")
    client.feed(Reply(first.id, HI))
    second = client.ask("b")
    client.forget(second)

    assert (first.id, second.id, client.ask("c").id) == (1, 3, 5)


def test_what_was_just_asked(client: Requests) -> None:
    """It waits, has nothing yet, and knows what for."""
    asked = client.ask("sum")

    assert (asked.command, asked.is_done, asked.failure) == ("sum", False, None)
    assert not asked.answers
    asked.wake()  # nobody waits yet, which is fine


def test_so_many_may_wait_and_no_more() -> None:
    """The limit passes; one more is refused, and takes no id."""
    client = Requests(by_client=True, limit=2)
    first, _second = client.ask("a"), client.ask("b", is_stream=True)

    with pytest.raises(Overloaded, match="2 calls and streams wait"):
        client.ask("c")
    client.feed(Reply(first.id, HI))

    assert client.ask("c").id == 5
    with pytest.raises(Overloaded):
        client.ask("d")


def test_no_limit_is_no_limit(client: Requests) -> None:
    """0 switches the limit off, in both directions."""
    for number in range(5000):
        client.ask("a")
        begun(client, 2 + 2 * number)

    assert (len(client.asked), len(client.answering)) == (5000, 5000)


def test_a_reply_ends_a_call(client: Requests) -> None:
    """The reply is there, whoever waits is woken, the call is over."""
    asked, other = client.ask("a"), client.ask("b")
    asked.wake, other.wake = Waker(), Waker()

    client.feed(Reply(asked.id, HI))

    assert ([*asked.answers], asked.is_done, asked.failure) == ([b"\xa2hi"], True, None)
    assert (asked.wake.times, other.wake.times) == (1, 0)
    assert client.asked == {other.id: other}


def test_an_answer_is_there_before_anybody_is_woken(client: Requests) -> None:
    """Whoever is woken finds what it was woken for."""
    call, stream = client.ask("a"), client.ask("b", is_stream=True)
    found: list[tuple[list[bytes | memoryview], bool]] = []

    def look() -> None:
        found.extend([([*call.answers], call.is_done)])
        found.extend([([*stream.answers], stream.is_done)])

    call.wake = stream.wake = look
    client.feed(Reply(call.id, HI))
    client.feed(item(stream, 5))
    client.feed(End(stream.id))

    assert found == [
        ([b"\xa2hi"], True),
        ([], False),
        ([b"\xa2hi"], True),
        ([b"\x05"], False),
        ([b"\xa2hi"], True),
        ([b"\x05"], True),
    ]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_failure_ends_a_call_or_stream(client: Requests, is_stream: bool) -> None:
    """The failure is there, whoever waits is woken, it is over."""
    asked = client.ask("a", is_stream=is_stream)
    asked.wake = Waker()
    failure = Failure(asked.id, "no", "why")

    client.feed(failure)

    assert (failure, True, 1) == (asked.failure, asked.is_done, asked.wake.times)
    assert client.asked == {}


def test_the_items_of_a_stream(client: Requests) -> None:
    """Items come in order; what came before the end, or a failure, can be taken."""
    for last in (End, lambda number: Failure(number, "no", "why")):
        asked = client.ask("a", is_stream=True)
        asked.wake = Waker()
        for number in (5, 6):
            client.feed(item(asked, number))
        client.feed(last(asked.id))

        assert (asked.is_done, asked.wake.times) == (True, 3)
        assert (asked.take(), asked.take()) == ((b"\x05", None), (b"\x06", None))
        assert asked.id not in client.asked


def test_an_answer_outlives_the_read_it_came_in(client: Requests) -> None:
    """An answer is a copy of its own: it keeps no whole frame alive."""
    call, stream = client.ask("a"), client.ask("b", is_stream=True)
    for frame in (Reply(call.id, HI), Item(stream.id, HI)):
        read = decode(encode(frame)[4:])
        assert isinstance(read, Reply | Item)
        client.feed(read)

    assert [type(one) for one in (*call.answers, *stream.answers)] == [bytes, bytes]


def test_a_large_answer_is_not_copied(client: Requests) -> None:
    """It is read where it was received, whatever comes after it."""
    call, stream = client.ask("a"), client.ask("b", is_stream=True)
    content = pack(bytes(LARGE))
    for kind, asked in ((3, call), (5, stream)):
        frame = b"\x93" + bytes((kind, asked.id)) + content
        read = decode(frame)
        assert isinstance(read, Reply | Item)
        client.feed(read)
        (answer,) = asked.answers
        assert isinstance(answer, memoryview)
        assert bytes(answer) == content


@pytest.mark.parametrize(
    ("is_stream", "wrong", "told"),
    [
        (True, Reply(1, HI), "Reply is no answer to 'sum'"),
        (False, Item(1, HI), "Item is no answer to 'sum'"),
        (False, End(1), "End is no answer to 'sum'"),
    ],
    ids=spelled,
)
def test_an_answer_of_the_wrong_kind(
    client: Requests, is_stream: bool, wrong: Reply | Item | End, told: str
) -> None:
    """A call is answered once, a stream item by item; all else is told."""
    asked = client.ask("sum", is_stream=is_stream)
    asked.wake = Waker()

    with pytest.raises(RemoteProtocolError, match=told):
        client.feed(wrong)
    assert ([*asked.answers], asked.is_done, asked.wake.times) == ([], False, 0)


def test_a_late_answer_is_counted(client: Requests) -> None:
    """What nobody waits for any more is no mistake: it crossed a cancellation."""
    forgotten, answered = client.ask("a"), client.ask("b")
    client.forget(forgotten)
    client.feed(Reply(answered.id, HI))

    for frame in (
        Reply(forgotten.id, HI),
        Failure(forgotten.id, "no", "why"),
        Item(forgotten.id, HI),
        End(forgotten.id),
        Reply(answered.id, HI),
        Reply(2**53, HI),
    ):
        client.feed(frame)

    assert client.late == 6
    assert ([*forgotten.answers], [*answered.answers]) == ([], [b"\xa2hi"])


def test_whether_to_cancel(client: Requests) -> None:
    """Only what the peer may still be at needs a ``Cancel``, and only once."""
    waiting, answered, failed = (client.ask("a") for _ in range(3))
    client.feed(Reply(answered.id, HI))
    client.feed(Failure(failed.id, "no", "why"))

    told = [client.forget(asked) for asked in (waiting, waiting, answered, failed)]

    assert told == [True, False, False, False]
    assert client.asked == {}


def test_only_ones_own_is_forgotten(client: Requests, server: Requests) -> None:
    """What another link asked under the same id is left alone."""
    mine, other = client.ask("a"), Requests(by_client=True, limit=0).ask("a")

    assert mine.id == other.id
    assert not client.forget(other)
    assert client.asked == {mine.id: mine}


def test_what_already_failed_needs_no_cancel(client: Requests) -> None:
    """Who gave up waiting, with an error of its own, has nothing to cancel."""
    asked = client.ask("a")
    asked.fail(LOST)

    assert (asked.failure, asked.is_done) == (LOST, True)
    assert not client.forget(asked)
    assert client.asked == {}


# --- credit ----------------------------------------------------------------------


def test_a_window_of_items_and_no_more(client: Requests) -> None:
    """What the first credit allows comes; one item more ends the connection."""
    asked = client.ask("a", is_stream=True)
    for number in range(WINDOW):
        client.feed(item(asked, number))

    with pytest.raises(RemoteProtocolError, match="without credit"):
        client.feed(item(asked))
    assert len(asked.answers) == WINDOW


def test_credit_after_half_a_window(client: Requests) -> None:
    """Who took half a window of items tells the producer, and again, and again."""
    asked = client.ask("a", is_stream=True)
    due: list[Credit | None] = []
    for number in range(2 * WINDOW):
        client.feed(item(asked, number))
        content, credit = asked.take()
        assert bytes([number]) == content
        due.append(credit)

    half = [*([None] * (WINDOW // 2 - 1)), Credit(asked.id, WINDOW // 2)]
    assert half * 4 == due


def test_a_stream_that_is_over_needs_no_credit(client: Requests) -> None:
    """After the end what is left is taken without a word to the producer."""
    asked = client.ask("a", is_stream=True)
    for number in range(WINDOW):
        client.feed(item(asked, number))
    client.feed(End(asked.id))

    assert {None} == {asked.take()[1] for _ in range(WINDOW)}
    with pytest.raises(IndexError):
        asked.take()


@given(st.lists(st.integers(0, 70), max_size=60))
def test_a_producer_that_keeps_to_its_credit_is_never_refused(steps: list[int]) -> None:
    """Whenever the reader takes, and however many: the window is never overrun."""
    client = Requests(by_client=True, limit=0)
    server = Requests(by_client=False, limit=0)
    asked = client.ask("a", is_stream=True)
    producer = begun(server, asked.id, stream=WINDOW)
    sent = got = 0
    for step in steps:
        while producer.credit:
            producer.credit -= 1
            client.feed(item(asked, sent % 256))
            sent += 1
        for _ in range(min(step, len(asked.answers))):
            content, credit = asked.take()
            assert bytes([got % 256]) == content
            got += 1
            if credit is not None:
                server.feed(credit)
        assert sent - got <= WINDOW
        assert got == sent or asked.answers or producer.credit


# --- the peer's ------------------------------------------------------------------


def test_a_request_is_taken(server: Requests) -> None:
    """A call wants one answer; a stream wants items, and gives its first credit."""
    call = begun(server, 1)
    stream = begun(server, 3, stream=64)

    assert (call.id, call.command, call.is_stream, call.credit) == (1, "sum", False, 0)
    assert (stream.id, stream.is_stream, stream.credit) == (3, True, 64)
    assert {1: call, 3: stream} == server.answering
    call.wake()  # nobody waits yet, which is fine


def test_a_request_is_known_before_its_turn(server: Requests) -> None:
    """It counts from when it came; at its turn it is the one that was known."""
    announced(server, 1)
    announced(server, 3, stream=64)
    known = dict(server.answering)

    call, stream = taken(server, 1), taken(server, 3)

    assert {1: call, 3: stream} == known == server.answering
    assert (call.is_over, stream.is_over) == (False, False)


@given(st.permutations(range(1, 14, 2)))
def test_turns_may_come_in_any_order(turns: list[int]) -> None:
    """Ids ascend as they come; a nested call may have its turn before an older one."""
    server = Requests(by_client=False, limit=7)
    announced(server, *range(1, 14, 2))

    for number in turns:
        answering = taken(server, number)
        assert answering.id == number
        assert server.finish(answering)

    assert server.answering == {}
    with pytest.raises(RemoteProtocolError, match="is not new"):
        announced(server, 13)


def test_there_is_no_turn_for_what_never_came(server: Requests) -> None:
    """A turn begins what was announced and is not done, nothing else."""
    assert server.begin(1) is None
    server.finish(begun(server, 1))
    assert server.begin(1) is None
    assert server.answering == {}


@pytest.mark.parametrize(("by_client", "wrong"), [(True, [1, 3, 99]), (False, [2, 4])])
def test_an_id_of_the_wrong_side(by_client: bool, wrong: list[int]) -> None:
    """A client cannot give a server's ids, nor a server a client's."""
    requests = Requests(by_client=by_client, limit=0)

    for number in wrong:
        with pytest.raises(RemoteProtocolError, match=f"the id {number} of a request"):
            announced(requests, number)
        assert requests.begin(number) is None
    assert requests.answering == {}


@pytest.mark.parametrize("again", [1, 3, 5])
def test_an_id_that_was_given_before(server: Requests, again: int) -> None:
    """Ids ascend: neither the same comes again, nor a smaller one, also when done."""
    server.finish(begun(server, 3))
    announced(server, 5)
    known = dict(server.answering)

    with pytest.raises(RemoteProtocolError, match="is not new"):
        announced(server, again)
    assert known == server.answering
    assert taken(server, 5) is known[5]
    assert begun(server, 4095).id == 4095


def test_the_peer_may_have_so_many_open() -> None:
    """The limit passes; one more is refused by name, its id is used up."""
    server = Requests(by_client=False, limit=2)
    first = begun(server, 1)
    begun(server, 3, stream=1)

    announced(server, 5)
    with pytest.raises(RemoteProtocolError, match="is not new"):
        announced(server, 5)
    assert server.begin(5) is None
    with pytest.raises(RemoteProtocolError, match="is not new"):
        announced(server, 5)
    server.feed(Cancel(first.id))
    announced(server, 7)
    assert server.begin(7) is None  # its handler still runs
    server.finish(first)

    assert begun(server, 9).id == 9
    assert sorted(server.answering) == [3, 9]


def test_who_waits_for_a_turn_counts_as_open() -> None:
    """The limit is of what came and is not answered, whether it began or not."""
    server = Requests(by_client=False, limit=2)
    announced(server, 1, 3, 5)

    assert (taken(server, 1).id, taken(server, 3).id) == (1, 3)
    assert server.begin(5) is None


def test_too_many_is_decided_when_it_came_and_told_at_its_turn() -> None:
    """Room that is made meanwhile is for who comes then: no turn is skipped."""
    server = Requests(by_client=False, limit=1)
    announced(server, 1, 3)
    assert server.finish(taken(server, 1))
    announced(server, 5)

    assert server.begin(3) is None
    assert taken(server, 5).id == 5
    assert sorted(server.answering) == [5]


@pytest.mark.parametrize("frame", [Cancel(3), Credit(3, 5)])
def test_what_steers_one_of_too_many_changes_nothing(frame: Cancel | Credit) -> None:
    """Who asked cannot know yet that it was refused; its turn tells all the same."""
    server = Requests(by_client=False, limit=1)
    announced(server, 1, 3)

    server.feed(frame)

    assert server.begin(3) is None
    first = taken(server, 1)
    assert (first.is_over, first.credit, server.late) == (False, 0, 0)


def test_the_last_word_is_said_once(server: Requests) -> None:
    """The first last word leaves; after it, or a cancellation, nobody wants any."""
    answered, cancelled = begun(server, 1), begun(server, 3)
    server.feed(Cancel(3))

    told = [server.finish(one) for one in (answered, answered, cancelled, cancelled)]

    assert told == [True, False, False, False]
    assert server.answering == {}


def test_a_cancellation_is_heard(server: Requests) -> None:
    """Whoever works on it is woken and sees that nobody wants it any more."""
    answering, other = begun(server, 1), begun(server, 3)
    answering.wake, other.wake = Waker(), Waker()

    server.feed(Cancel(1))

    assert (answering.is_over, answering.wake.times) == (True, 1)
    assert (other.is_over, other.wake.times) == (False, 0)


def test_a_cancellation_may_overtake_a_turn(server: Requests) -> None:
    """At its turn nobody wants it any more; it is open until that is said."""
    announced(server, 1, 3)
    server.feed(Cancel(3))

    overtaken, other = taken(server, 3), taken(server, 1)

    assert (overtaken.is_over, other.is_over) == (True, False)
    assert [*server.answering] == [1, 3]
    assert not server.finish(overtaken)
    assert [*server.answering] == [1]


def test_credit_may_overtake_a_turn(server: Requests) -> None:
    """What came before the turn is there when the producer begins."""
    announced(server, 1, 3, stream=2)
    server.feed(Credit(1, 5))
    server.feed(Credit(1, 1))

    overtaken, other = taken(server, 1), taken(server, 3)

    assert (overtaken.credit, overtaken.is_over) == (8, False)
    assert other.credit == 2


def test_credit_adds_up(server: Requests) -> None:
    """Each credit is added, wakes the producer, and has no end that overflows."""
    answering = begun(server, 1, stream=2)
    answering.wake = Waker()
    credits = []
    for n in (3, 2**31, 2**31):
        server.feed(Credit(1, n))
        credits.append(answering.credit)

    assert credits == [5, 2**31, 2**31]
    assert answering.wake.times == 3


@pytest.mark.parametrize("frame", [Cancel(1), Credit(1, 5), Cancel(2), Credit(4, 5)])
def test_what_steers_nothing_is_no_mistake(
    server: Requests, frame: Cancel | Credit
) -> None:
    """Our last word may cross the peer's cancellation or credit."""
    server.finish(begun(server, 1))
    server.feed(frame)

    assert (server.late, server.answering) == (0, {})


# --- the end ---------------------------------------------------------------------


def test_the_end_of_the_link_fails_all(client: Requests) -> None:
    """Whoever waits is woken with the reason; whoever works hears nobody wants it."""
    call, stream = client.ask("a"), client.ask("b", is_stream=True)
    client.feed(item(stream, 5))
    answered = client.ask("c")
    client.feed(Reply(answered.id, HI))
    theirs = begun(client, 2)
    announced(client, 4)
    waiting = client.answering[4]
    call.wake, stream.wake, answered.wake, theirs.wake = (Waker() for _ in range(4))
    wakers = [call.wake, stream.wake, answered.wake, theirs.wake]

    client.fail_all(LOST)
    client.fail_all(LOST)

    assert [waker.times for waker in wakers] == [1, 1, 0, 1]
    assert (LOST, True) == (call.failure, call.is_done) == (stream.failure, True)
    assert (answered.failure, theirs.is_over) == (None, True)
    assert (waiting.is_over, client.begin(4)) == (True, None)
    assert stream.take() == (b"\x05", None)
    assert (client.asked, client.answering) == ({}, {})
    assert (client.forget(call), client.finish(theirs)) == (False, False)


def test_who_is_woken_by_the_end_may_ask_again(client: Requests) -> None:
    """Nothing that a woken one does disturbs the waking of the others."""
    first, second = client.ask("a"), client.ask("b")
    second.wake = Waker()

    def again() -> None:
        client.forget(second)
        client.ask("c")

    first.wake = again
    client.fail_all(LOST)

    assert (second.is_done, second.wake.times, [*client.asked]) == (True, 1, [5])
