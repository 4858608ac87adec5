"""What becomes of messages to a peer that is too slow: what their sender wished, in
order, and told wherever something is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from hisock import ClientInfo, Limits
from hisock.client import HiSockClient
from hisock.engine.link import READ_SIZE
from hisock.errors import (
    InvalidOption,
    Overloaded,
    SendTimeout,
    SessionLost,
    Undelivered,
    UnknownGroup,
    WouldBlock,
)
from hisock.hub.outbox import HARD_FACTOR
from hisock.session.resume import ACK_SIZE
from hisock.types import Gap

from . import PATIENCE, Kind, Net, Record, Thread, bare, eventually
from .slowness import BOUND, SIZE, SlowHandler, SlowWay

#: More than fits into the bound, several times.
MANY = 5 * BOUND // SIZE
#: What fits into it.
FITS = BOUND // SIZE

FACES = (
    Kind("plain", "blocking"),
    Kind("threaded", "blocking"),
    Kind("async", "asyncio"),
)
WAYS = [
    pytest.param((kind, up), id=f"{kind}-{'up' if up else 'down'}")
    for kind in FACES
    for up in (True, False)
]


@pytest.fixture(params=FACES, ids=str)
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """Servers and clients of one face."""
    made = Net("compact", request.param, request.param)
    yield made
    made.close()


@pytest.fixture(params=WAYS)
def slow(request: pytest.FixtureRequest) -> Iterator[SlowWay]:
    """A network that can be held up between two peers of one face, both turned."""
    kind, up = request.param
    net = Net("compact", kind, kind)
    way = SlowWay(net, up=up)
    way.turn()
    way.settle()
    yield way
    net.close()


@pytest.fixture
def down(net: Net) -> SlowWay:
    """The same from the server to its client."""
    way = SlowWay(net, up=False)
    way.turn()
    way.settle()
    return way


# --- to one ------------------------------------------------------------------------


def test_wait_waits_for_room(slow: SlowWay) -> None:
    """Nothing is lost, and no more is held than may be."""
    most = Record()
    slow.hold(slow.there)

    def send() -> None:
        for number in range(MANY):
            slow.number(number, when_slow="wait")
            most(slow.outbox.held)

    sending = Thread(send)
    eventually(lambda: slow.outbox.is_full)
    assert sending.is_alive
    slow.go_on()
    sending.result()
    came = slow.until_mark()
    assert came.items == list(range(MANY))
    # Who sends looks each 64 KiB.
    assert max(most.take(MANY)) < BOUND + ACK_SIZE + 2 * SIZE


def test_without_a_wish_a_send_to_one_waits(slow: SlowWay) -> None:
    """That is the usual."""
    slow.hold(slow.there)
    sending = Thread(slow.numbers, range(MANY))
    eventually(lambda: slow.outbox.is_full)
    assert sending.is_alive
    slow.go_on()
    sending.result()
    assert slow.until_mark().items == list(range(MANY))


def send_while_accepted(slow: SlowWay, accepted: list[int], **wish: Any) -> None:
    """Send until that raises; note what did not."""
    for number in range(MANY):
        slow.number(number, **wish)
        accepted.append(number)


def test_wait_gives_up(slow: SlowWay, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some time in which nothing is taken; what was accepted still arrives."""
    for module in ("members", "uplink", "awaiting"):
        monkeypatch.setattr(f"hisock.engine.{module}.STALL", 0.3)
    slow.hold(slow.there)
    accepted: list[int] = []
    with pytest.raises(SendTimeout, match=r"took nothing for 0\.3 s"):
        send_while_accepted(slow, accepted)
    assert FITS - 3 < len(accepted) <= FITS + 3
    slow.go_on()
    came = slow.until_mark()
    kind = slow.net.client_kind if slow.up else slow.net.server_kind
    # In aio a send happens when it is called; only its awaitable waits, and gives up.
    assert came.items == list(range(len(accepted) + kind.is_async))


def test_raise_says_so_at_once(slow: SlowWay) -> None:
    """The message that had no room is not sent, all others are."""
    slow.hold(slow.there)
    accepted: list[int] = []
    with pytest.raises(WouldBlock):
        send_while_accepted(slow, accepted, when_slow="raise")
    assert FITS - 3 < len(accepted) <= FITS + 3
    for number in range(3):
        with pytest.raises(WouldBlock, match="bytes wait"):
            slow.number(number, when_slow="raise")
    slow.go_on()
    slow.settle()
    slow.number(MANY, when_slow="raise")
    assert slow.until_mark().items == [*accepted, MANY]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_what_is_dropped_is_told_in_its_place(slow: SlowWay, policy: Any) -> None:
    """With its count, once for all that is missing there."""
    slow.hold(slow.there)
    held = []
    for number in range(MANY):
        slow.number(number, when_slow=policy)
        held.append(slow.outbox.held)
    assert max(held) < BOUND + 2 * SIZE
    slow.go_on()
    came = slow.until_mark()
    assert FITS - 3 < len(came.numbers) < MANY - FITS
    assert came.numbers == sorted(set(came.numbers))
    if slow.up:  # a server's program is not told what its client's dropped on purpose
        assert not came.gaps
        return
    came.expect_gaps_in_place(MANY)
    assert len(came.gaps) == 1


def test_the_oldest_are_dropped_and_the_newest_arrive(slow: SlowWay) -> None:
    """Of those that had not left."""
    slow.hold(slow.there)
    slow.numbers(range(MANY), when_slow="drop_oldest")
    slow.go_on()
    came = slow.until_mark()
    assert came.numbers[-1] == MANY - 1
    assert len(came.numbers) < MANY


def test_the_newest_are_dropped_and_the_oldest_arrive(slow: SlowWay) -> None:
    """All that had room when it was sent."""
    slow.hold(slow.there)
    slow.numbers(range(MANY), when_slow="drop_newest")
    slow.go_on()
    came = slow.until_mark()
    assert FITS - 3 < len(came.numbers) < FITS + 3
    assert came.numbers == list(range(len(came.numbers)))


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_what_may_not_be_dropped_is_not(slow: SlowWay, policy: Any) -> None:
    """Neither is it overtaken by what may, nor does it overtake."""
    slow.hold(slow.there)
    firm = range(0, FITS - 5, 10)
    for number in range(MANY):
        if number in firm:
            slow.number(number, "other")
        else:
            slow.number(number, when_slow=policy)
    slow.go_on()
    came = slow.until_mark()
    assert came.numbers == sorted(came.numbers)
    assert set(came.numbers) >= set(firm)
    assert len(came.numbers) < MANY
    if not slow.up:
        came.expect_gaps_in_place(MANY)


def test_only_the_newest_state_arrives(slow: SlowWay) -> None:
    """For each key and command; the order of all stays, and nothing is missing."""
    slow.hold(slow.there)
    held = []
    for number in range(0, 10 * MANY, 5):
        slow.number(number, key="a")
        slow.number(number + 1, key="b")
        slow.number(number + 2, "other", key="a")
        slow.number(number + 3, when_slow="latest")
        held.append(slow.outbox.held)
    assert max(held) < 2 * BOUND
    slow.go_on()
    came = slow.until_mark()
    assert came.numbers == sorted(set(came.numbers))
    last = 10 * MANY - 5
    assert {last, last + 1, last + 2, last + 3} <= set(came.numbers)
    assert len(came.numbers) < MANY
    assert not came.gaps


def test_a_state_takes_the_place_of_its_newest_message(slow: SlowWay) -> None:
    """What was sent before it arrives before it, and what after it, after it."""
    slow.hold(slow.there)
    firm = range(0, FITS - 5, 10)
    for number in range(MANY):
        if number in firm:
            slow.number(number, "other")
        else:
            slow.number(number, key="it")
    slow.go_on()
    came = slow.until_mark()
    assert came.numbers == sorted(came.numbers)
    assert set(firm) <= set(came.numbers)
    assert came.numbers[-1] == MANY - 1


def test_fast_peers_get_all_of_it(slow: SlowWay) -> None:
    """A policy is only for a peer that is too slow."""
    for policy in ("drop_oldest", "drop_newest", "latest", "raise", "disconnect"):
        for number in range(FITS // 8):
            slow.number(number, when_slow=policy)
        assert slow.until_mark().items == list(range(FITS // 8))


@pytest.mark.parametrize("policy", ["wait", "raise", "drop_oldest", "latest"])
def test_a_cut_in_the_middle_changes_nothing(slow: SlowWay, policy: Any) -> None:
    """Dropped or not, what arrives is in order, once, and the newest is among it."""
    slow.hold(slow.there)
    slow.numbers(range(FITS // 2), when_slow="disconnect")
    slow.proxy.refuse()
    slow.cut("rst")
    slow.expect("drop")
    if policy in ("drop_oldest", "latest"):
        slow.numbers(range(FITS // 2, MANY), when_slow=policy)
    else:
        slow.numbers(range(FITS // 2, FITS - 5), when_slow=policy)
    slow.proxy.accept_again()
    came = slow.until_mark()
    assert came.numbers == sorted(set(came.numbers))
    assert came.numbers[: FITS // 2] == list(range(FITS // 2))
    last = MANY if policy in ("drop_oldest", "latest") else FITS - 5
    assert came.numbers[-1] == last - 1


# --- life times --------------------------------------------------------------------


def test_what_lived_too_long_does_not_arrive(slow: SlowWay) -> None:
    """A replay after a cut included; all else does, in order."""
    slow.hold(slow.there)
    slow.number(1)
    slow.number(2, ttl=0.1)
    slow.number(3, ttl=30)
    end = time.monotonic() + 0.15
    eventually(lambda: time.monotonic() > end)
    slow.cut("rst")
    slow.number(4, ttl=30)
    assert slow.until_mark().items == [1, 3, 4]


# --- many --------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_a_gap_tells_the_group(down: SlowWay, policy: Any) -> None:
    """Gaps of different groups are told apart."""
    down.hold("down")
    down.server.join_group("ann", "blue")
    for number in range(FITS + 2):
        down.broadcast(number)
    for group in ("red", "red", "blue"):
        down.server.send_group(group, "it", [-1, b""], when_slow=policy)
    down.server.send_all_clients("it", [-1, b""], when_slow=policy)
    down.go_on()
    came = down.until_mark()
    # The newest is never what goes for the sake of itself.
    last = [] if policy == "drop_oldest" else [Gap(1, None)]
    assert came.gaps == [Gap(2, "red"), Gap(1, "blue"), *last]


@pytest.mark.parametrize("policy", [None, "disconnect", "drop_newest", "latest"])
def test_a_slow_member_delays_nobody(down: SlowWay, policy: Any) -> None:
    """Nor is a send to all held up by it."""
    others = [Record() for _ in range(4)]
    for number, got in enumerate(others):
        client = down.net.client(down.server, f"fast {number}", "red")
        client.on("it")(lambda message, got=got: got(message[0]))
        down.net.turn(client)
    down.net.expect_members(down.server, 5)
    down.server.join_group("ann", "slow")

    def worst_of(numbers: range) -> float:
        taken = []
        for number in numbers:
            began = time.monotonic()
            down.server.send_group("red", "it", [number, b"x"], when_slow=policy)
            assert [got.next() for got in others] == [number] * 4
            taken.append(time.monotonic() - began)
        return sorted(taken)[int(len(taken) * 0.99)]

    usual = worst_of(range(200))
    down.hold("down")
    for number in range(FITS + 2):
        down.broadcast(number, "slow")
    tries = [worst_of(range(200 * n, 200 * n + 200)) for n in range(1, 4)]
    # A busy machine is forgiven; a wait for the slow one takes far longer.
    assert min(tries) < 2 * usual + 0.01
    down.go_on()


def say_numbers(client: HiSockClient) -> None:
    """Have a client say a hundred things."""
    for number in range(100):
        client.send("say", number)


def test_members_hear_the_same_in_the_same_order(net: Net) -> None:
    """Whoever sends: clients whose messages are passed on, and the server's program."""
    server = net.server()

    @server.on("say")
    def say(client: ClientInfo, what: Any) -> None:
        server.send_group("red", "said", [client["name"], what])

    net.turn(server)
    records = [Record() for _ in range(5)]
    clients = []
    for number, got in enumerate(records):
        client = net.client(server, f"member {number}", "red")
        client.on("said")(lambda said, got=got: got(tuple(said)))
        clients.append(client)
    net.turn()
    net.expect_members(server, 5)
    senders = [Thread(say_numbers, client) for client in clients]
    for number in range(100):
        server.send_group("red", "said", ["server", number])
    for sender in senders:
        sender.result()
    heard = [got.take(600) for got in records]
    assert heard == heard[:1] * 5
    for name in ("server", *(client.name for client in clients)):
        assert [n for who, n in heard[0] if who == name] == list(range(100))


def test_what_one_hears_alone_keeps_its_place(net: Net) -> None:
    """Between what all hear, however many messages wait for the handler that says it;
    long or short, for all or for one."""
    server = net.server()

    @server.on("say")
    def say(client: ClientInfo, what: int) -> None:
        text = "x" * (what % 50 * 10)
        server.send_group("red", "said", ["to all", what, text])
        if what % 3:
            server.send_client(client, "said", ["to you", what, text])
        server.send_all_clients("said", ["to all", what + 0.5, text])

    net.turn(server)
    records = [Record() for _ in range(5)]
    clients = []
    for number, got in enumerate(records):
        client = net.client(server, f"member {number}", "red")
        client.on("said")(lambda said, got=got: got((said[0], said[1])))
        clients.append(client)
    net.turn()
    net.expect_members(server, 5)
    for number in range(300):
        clients[0].send("say", number)
    to_all = [("to all", n / 2) for n in range(600)]
    for got in records[1:]:
        assert got.take(600) == to_all
    mine = records[0].take(800)
    assert [said for said in mine if said[0] == "to all"] == to_all
    for said, after in pairwise(mine):
        if after[0] == "to you":
            assert said == ("to all", after[1])


@pytest.mark.parametrize("resumes", [True, False], ids=["in time", "too late"])
def test_a_slow_consumer_is_cut(down: SlowWay, resumes: bool) -> None:
    """At four times the bound; it may come back to all that still fits."""
    down.hold("down")
    down.proxy.refuse()
    count = 0
    limit = (HARD_FACTOR + 1) * FITS
    outbox = down.outbox
    while not outbox.is_overflowing and count < limit:
        down.broadcast(count)
        count += 1
    assert down.told_server.next() == "drop"
    assert count > (HARD_FACTOR - 1) * FITS
    if resumes:
        down.go_on()
        down.proxy.accept_again()
        assert down.told_server.next() == "resume"
        down.settle()
        assert down.until_mark().items == list(range(count))
        return
    with suppress(UnknownGroup):  # its session has ended
        for number in range(count, 2 * limit):
            down.broadcast(number)
    assert down.told_server.next() == "leave"
    report = down.undelivered.next()
    assert isinstance(report, Undelivered)
    sent = [message.content[0] for message in report.sent]
    assert sent == list(range(sent[0], sent[0] + len(sent)))
    assert sent[0] == 0
    down.go_on()
    down.proxy.accept_again()
    assert down.told_server.next() == "join"
    told = [down.told_client.next() for _ in range(2)]
    assert told[0] == "drop"
    assert isinstance(told[1], SessionLost)
    assert told[1].reason == "overflow"


# --- what is refused ---------------------------------------------------------------

_SENDS: dict[str, Callable[[SlowWay, dict[str, Any]], Any]] = {
    "client": lambda way, wish: way.client.send("it", [1], **wish),
    "send_client": lambda way, wish: way.server.send_client("ann", "it", [1], **wish),
    "send_group": lambda way, wish: way.server.send_group("red", "it", [1], **wish),
    "send_all": lambda way, wish: way.server.send_all_clients("it", [1], **wish),
    "info": lambda way, wish: way.server.client("ann").send("it", [1], **wish),
    "group": lambda way, wish: way.server.group("red").send("it", [1], **wish),
}
_WRONG: dict[str, dict[str, Any]] = {
    "no such policy": {"when_slow": "sometimes"},
    "no text": {"when_slow": 5},
    "a key for another": {"when_slow": "drop_oldest", "key": 1},
    "a key like a list": {"key": [1]},
    "a life of none": {"ttl": 0},
    "a negative life": {"ttl": -1.0},
    "no number": {"ttl": float("nan")},
    "a life in words": {"ttl": "long"},
    "true": {"ttl": True},
}


@pytest.mark.parametrize("send", _SENDS)
def test_wrong_wishes_are_refused(down: SlowWay, send: str) -> None:
    """And nothing is sent."""
    for wish in _WRONG.values():
        with pytest.raises(InvalidOption):
            _SENDS[send](down, wish)
    assert not down.until_mark().items


def test_coroutine_handlers_have_the_same_wishes(net: Net) -> None:
    """Their client's ``send`` is awaited, and takes them all."""
    server = net.server()

    @server.on("ask")
    async def ask(client: Any, number: int) -> None:
        await client.send("answer", number)
        await client.send("answer", number + 1, ttl=30.0)
        await client.send("answer", number + 2, when_slow="drop_newest")
        await client.send("answer", number + 3, key="state")

    net.turn(server)
    client = net.client(server, "ann")
    got = Record()
    client.on("answer")(lambda number: got(number))
    net.turn(client)
    client.send("ask", 1)
    assert got.take(4) == [1, 2, 3, 4]


# --- who only sends, who is slow ---------------------------------------------------


@pytest.mark.parametrize("waiting", ["blocking", "nonblocking"])
def test_who_only_sends_is_served_too(waiting: str) -> None:
    """Thousands of messages without an ``update()``, and no more kept than may be."""
    net = Net("compact", Kind("threaded", "blocking"), Kind("plain", waiting))
    try:
        server, got = net.server(), Record()
        server.on("it")(lambda client, number: got(number))
        net.turn(server)
        client = net.client(server, "ann", limits=Limits(outbox=BOUND))
        held = 0
        for number in range(5000):
            while True:
                try:
                    client.send("it", number)
                    break
                except WouldBlock:
                    assert waiting == "nonblocking"
                    eventually(lambda: _reads(client))
            held = max(held, bare(client)._engine.link.outbox.held)
        assert got.take(5000) == list(range(5000))
        assert held < BOUND + SIZE
    finally:
        net.close()


def send_numbers(client: HiSockClient, count: int) -> None:
    """Send so many padded messages."""
    for number in range(count):
        client.send("it", [number, bytes(SIZE)])


def _reads(client: Any) -> bool:
    client.poll(0.0)
    return not client._engine.link.outbox.is_full


def test_what_comes_meanwhile_waits_for_update(net: Net) -> None:
    """It is read, in order, and not lost."""
    if net.client_kind.face != "plain":
        pytest.skip("somebody turns it all the time")
    server = net.server()
    server.on("it")(lambda client, number: server.send_client(client, "back", number))
    net.turn(server)
    client = net.client(server, "ann", limits=Limits(outbox=BOUND))
    got = Record()
    client.on("back")(lambda number: got(number))
    for number in range(3000):
        client.send("it", number)
    net.turn(client)
    assert got.take(3000) == list(range(3000))


def test_who_never_updates_is_told(net: Net) -> None:
    """Where more came than may wait, a send raises what the cure is."""
    if net.client_kind.face != "plain":
        pytest.skip("somebody turns it all the time")
    server = net.server()
    server.on("it")(
        lambda client, content: server.send_client(client, "back", bytes(20 * SIZE))
    )
    net.turn(server)
    limits = Limits(outbox=BOUND, queue=BOUND)
    client = net.client(server, "ann", limits=limits)
    client.on("back")(lambda content: None)
    sending = Thread(send_numbers, client, 2000)
    with pytest.raises(Overloaded, match=r"call update\(\) more often"):
        sending.result()


@pytest.mark.parametrize("limit", ["handler_messages", "handler_queue"])
def test_a_slow_handler_pauses_the_reading(net: Net, limit: str) -> None:
    """What does not fit waits at the client; all of it is handled, in order."""
    allowed = {"handler_messages": 8, "handler_queue": 8 * SIZE}[limit]
    slow = SlowHandler(net, **{limit: allowed})
    sending = Thread(send_numbers, slow.client, 2000)
    try:
        eventually(lambda: slow.link.is_paused)
        # The bound is looked at between two reads, of 64 KiB each.
        assert slow.waiting < 8 + 3 * (READ_SIZE // SIZE + 1)
    finally:
        slow.let_go.set()
    assert slow.got.take(2000) == list(range(2000))
    sending.result()


def test_answers_come_through_a_full_queue(net: Net) -> None:
    """What the server asks is answered though its handler for that client is slow."""
    slow = SlowHandler(net, handler_messages=8)
    try:
        slow.client.send("it", [0])
        assert slow.begun.wait(PATIENCE)
        for number in range(1, 40):
            slow.client.send("it", [number])
        eventually(lambda: slow.link.is_paused)
        session = slow.link.connection.session
        eventually(lambda: session.received == session.told)  # no timer is left
        asking = Thread(
            lambda: slow.server.call_client("ann", "double", 21, timeout=PATIENCE)
        )
        for number in range(40, 80):
            slow.client.send("it", [number])
        assert asking.result() == 42
    finally:
        slow.let_go.set()
    assert slow.got.take(80) == list(range(80))


def test_an_answer_behind_a_flood_is_not_waited_for(net: Net) -> None:
    """The call fails; what came before the answer is handled all the same."""
    slow = SlowHandler(net, queue=BOUND)
    try:
        slow.client.send("it", [0, bytes(SIZE)])
        assert slow.begun.wait(PATIENCE)

        @slow.client.on("flood")
        def flood(count: int) -> int:
            for number in range(1, count):
                slow.client.send("it", [number, bytes(SIZE)])
            return count

        call = Thread(
            lambda: slow.server.call_client("ann", "flood", 400, timeout=None)
        )
        with pytest.raises(Overloaded, match="so the answer behind it is not read"):
            call.result()
    finally:
        slow.let_go.set()
    assert slow.got.take(400) == list(range(400))
    assert slow.server.call_client("ann", "double", 21) == 42


def test_what_comes_in_many_pieces_waits_as_one(net: Net) -> None:
    """To look how much waits costs the same, however small the pieces are."""
    slow = SlowHandler(net, handler_messages=0)
    try:
        for number in range(300):
            slow.client.send("it", [number])
            if not number:
                assert slow.begun.wait(PATIENCE)
        eventually(lambda: slow.waiting >= 299)
        assert len(slow.link.inbox) <= 3
    finally:
        slow.let_go.set()
    assert slow.got.take(300) == list(range(300))
