"""A session over a network that does its worst: every message once, and in order."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from hisock.wire.compact import LARGE

from .pair import Net, Peer, block, in_parts

#: Connections that the server has not read to the end; more prove nothing more.
_DOORS = 3

sides = st.sampled_from([0, 1])
sizes = st.sampled_from([0, 0, 0, 1, 100, 1000, 3000])
#: Room for at least a hello, and for anything.
rooms = st.sampled_from([700, 1500, 10**9])
amounts = st.one_of(st.integers(1, 40), st.integers(1, 1500), st.just(10**9))
kept = st.one_of(st.integers(0, 700), st.just(10**9))


class Sessions(RuleBasedStateMachine):
    """A client, a server, and whatever may happen between them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.sent: tuple[list[int], list[int]] = ([], [])

    def peer(self, side: int) -> Peer | None:
        """One of the two, if it is there."""
        return self.net.client if side == 0 else self.net.member

    def next_number(self, side: int) -> int:
        """The number of the next message from a side."""
        self.sent[side].append(len(self.sent[side]) + 1)
        return self.sent[side][-1]

    # --- what the programs do ----------------------------------------------------

    @rule(side=sides, size=sizes)
    def say(self, side: int, size: int) -> None:
        """A message is sent."""
        if (peer := self.peer(side)) is not None:
            peer.say(self.next_number(side), size)

    @rule(side=sides, size=st.sampled_from([10, 1000, LARGE + 10]))
    def say_in_parts(self, side: int, size: int) -> None:
        """A large message is sent, or what is written as one."""
        peer = self.peer(side)
        if peer is not None and not self.is_early(side):
            peer.send(in_parts(self.next_number(side), size))

    @rule(side=sides, count=st.integers(1, 70))
    def say_a_batch(self, side: int, count: int) -> None:
        """Several are sent at once."""
        peer = self.peer(side)
        if peer is not None and not self.is_early(side):
            peer.send(block([self.next_number(side) for _ in range(count)]))

    def is_early(self, side: int) -> bool:
        """Whether only what both wires know may leave."""
        return side == 0 and self.net.client.is_early

    @rule()
    def wait(self) -> None:
        """Time passes in which nothing comes."""
        self.net.now += 0.25
        for peer in self.net.peers:
            peer.tick(self.net.now)

    # --- what the network does ---------------------------------------------------

    @rule(side=sides, amount=amounts)
    def deliver(self, side: int, amount: int) -> None:
        """Some bytes come to a side, and make room for more."""
        peer = self.peer(side)
        if peer is not None and peer.pipe.is_open[side]:
            peer.read(amount, self.net.now)
        for each in self.net.peers:
            each.flush()

    @rule(side=sides, room=st.sampled_from([0, 0, 700, 10**9]))
    def narrow(self, side: int, room: int) -> None:
        """A connection takes more or less than before; nothing, once it has a hello."""
        peer = self.peer(side)
        if peer is not None and not (peer.is_dropped or self.is_early(side)):
            peer.pipe.room = room

    @rule(amount=amounts)
    def deliver_at_the_door(self, amount: int) -> None:
        """Some bytes come to the server, from who is not let in yet."""
        for door in [*self.net.doors]:
            self.net.read_door(door, amount)

    @rule(newest_first=st.booleans())
    def enter(self, newest_first: bool) -> None:
        """Those who have said hello are let in, in any order; only the first connection
        of all, with its early messages, is not overtaken."""
        if newest_first and self.net.member is not None:
            self.net.doors.reverse()
        self.net.enter()

    @rule(amount=st.sampled_from([7, 100, 10**9]))
    def deliver_all(self, amount: int) -> None:
        """Everything comes."""
        if amount > 7 or sum(peer.outbox.size for peer in self.net.peers) < 5000:
            self.net.deliver(amount)

    @rule(side=sides, up=kept, down=kept)
    def cut(self, side: int, up: int, down: int) -> None:
        """The connection that a side knows of is cut, between any two bytes."""
        if (peer := self.peer(side)) is not None:
            peer.pipe.cut(up, down)

    @rule(side=sides)
    def lose(self, side: int) -> None:
        """One side finds that its link is gone; the other does not know yet."""
        peer = self.peer(side)
        if peer is not None and not peer.is_dropped and not self.is_early(side):
            peer.suspend(self.net.now)

    @precondition(lambda self: len(self.net.doors) < _DOORS)
    @rule(room=rooms)
    def come_back(self, room: int) -> None:
        """The client tries another connection, whatever became of the others."""
        self.net.client.come_back(room)

    @precondition(lambda self: len(self.net.doors) < _DOORS)
    @rule(room=rooms, up=kept, down=kept)
    def come_back_for_nothing(self, room: int, up: int, down: int) -> None:
        """The hello or its answer is lost on the way."""
        self.net.client.come_back(room)
        self.net.client.pipe.cut(up, 10**9)
        self.deliver_at_the_door(10**9)
        self.net.enter()
        self.net.client.pipe.cut(10**9, down)
        self.deliver(0, 10**9)

    # --- what holds --------------------------------------------------------------

    @property
    def got(self) -> tuple[list[int], list[int]]:
        """What came from each side."""
        return self.net.got, self.net.client.got

    @property
    def lost(self) -> tuple[list[int], list[int]]:
        """What each side has reported as perhaps not delivered."""
        return self.net.client.lost, self.net.lost

    @invariant()
    def everything_comes_once_and_in_order(self) -> None:
        """What came is the beginning of what was sent: nothing twice, no gap."""
        for sent, got, lost in zip(self.sent, self.got, self.lost, strict=True):
            if lost:
                assert all(a < b for a, b in itertools.pairwise(got))
            else:
                assert got == sent[: len(got)]

    @invariant()
    def sizes_are_right(self) -> None:
        """Never negative; what is held is what is not known to have come."""
        for peer in self.net.peers:
            replay = peer.outbox.replay
            assert replay is not None
            assert min(peer.outbox.size, replay.size) >= 0
            assert peer.outbox.held >= replay.size
            assert replay.acked <= replay.last

    @invariant()
    def nobody_is_refused(self) -> None:
        """Whatever was lost: the token that the client has is good."""
        assert not [event for event in self.net.client.events if "refused" in event]

    def teardown(self) -> None:
        """In the end all is delivered or reported, and nothing is held."""
        self.net.settle()
        self.everything_comes_once_and_in_order()
        self.nobody_is_refused()
        for sent, got, lost in zip(self.sent, self.got, self.lost, strict=True):
            assert {*got} | {*lost} == {*sent}
        for peer in self.net.peers:
            assert (peer.outbox.size, peer.outbox.held) == (0, 0)
            assert peer.is_dropped is False


class LivingSessions(Sessions):
    """The server keeps the session: nothing at all is lost."""

    @invariant()
    def nothing_is_lost(self) -> None:
        """Nothing is reported, once the server has heard of the client."""
        assert self.net.lost == []
        if "welcome" in self.net.client.events:
            assert self.net.client.lost == []


class EndingSessions(Sessions):
    """The server forgets the session now and then: what that costs is reported."""

    @rule(reason=st.sampled_from(["expired", "overflow", "evicted"]))
    def end(self, reason: str) -> None:
        """Nobody waits for the client any more."""
        if self.net.member is not None:
            self.net.end_session(reason)


BOUNDS = settings(stateful_step_count=40, deadline=None, report_multiple_bugs=False)

TestLivingSessions = LivingSessions.TestCase
TestLivingSessions.settings = settings(BOUNDS, max_examples=300)
TestEndingSessions = EndingSessions.TestCase
TestEndingSessions.settings = settings(BOUNDS, max_examples=200)
