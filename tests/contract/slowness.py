"""Peers that are slow: a network that takes nothing for a while, a busy handler."""

from __future__ import annotations

__all__ = ("BOUND", "SIZE", "Got", "SlowHandler", "SlowWay")

import threading
from collections.abc import Iterable
from typing import Any

from hisock import ClientInfo, Limits
from hisock.hub.outbox import Outbox
from hisock.types import Gap

from . import PATIENCE, Net, Record, bare, eventually
from .cutting import CutWay

#: Bytes that may wait for a peer in these tests.
BOUND = 256 * 1024
#: Bytes of padding of one message.
SIZE = 4000

_PADDING = b"x" * SIZE


class SlowWay(CutWay):
    """As ``CutWay``, with a small bound; every message has a number and is padded.

    Attributes:
        got: Numbers, and gaps in their places, as they came; other content as it is.
        undelivered: What the server's ``on_error`` was told.
    """

    def __init__(self, net: Net, *, up: bool, **limits: Any) -> None:
        self.got = Record()
        self.undelivered = Record()
        options = {"limits": Limits(outbox=BOUND, **limits)}
        super().__init__(net, up=up, server=options, client=options)
        for command in ("it", "other"):
            self.on(command)(self._note_number)
        self.on("mark")(lambda message: self.got(message))
        self.client.on_gap(lambda gap: self.got(gap))

    def _note_number(self, message: Any) -> None:
        self.got(message[0])

    def turn(self) -> None:
        """Have both turned, and know what the server's errors are."""
        super().turn()
        self.server.on_error(lambda error: self.undelivered(error))

    def number(self, number: int, command: str = "it", **options: Any) -> None:
        """Send a padded message."""
        self.send(command, [number, _PADDING], **options)

    def numbers(self, numbers: Iterable[int], **options: Any) -> None:
        """Send several."""
        for number in numbers:
            self.number(number, **options)

    def broadcast(self, number: int, group: str = "red", **options: Any) -> None:
        """Send a padded message from the server to a group that the client is in."""
        self.server.send_group(group, "it", [number, _PADDING], **options)

    @property
    def outbox(self) -> Outbox:
        """What waits at who sends."""
        if self.up:
            outbox: Outbox = bare(self.client)._engine.link.outbox
        else:
            outbox = bare(self.server)._members.look_up("ann").outbox
        return outbox

    def go_on(self) -> None:
        """Let all pass that waits."""
        self.proxy.heal()

    def until_mark(self) -> Got:
        """Send a last message, and return what came before it."""
        sending = threading.Thread(target=self.send, args=("mark", "end"))
        sending.start()
        came = []
        while (item := self.got.next()) != "end":
            came.append(item)
        sending.join()
        return Got(came)

    def settle(self) -> None:
        """Wait until nothing is unacknowledged any more."""
        eventually(lambda: not self.outbox.held)


class Got:
    """What came: numbers, and gaps between them."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.numbers = [item for item in items if isinstance(item, int)]
        self.gaps = [item for item in items if isinstance(item, Gap)]

    def expect_gaps_in_place(self, count: int, group: str | None = None) -> None:
        """Numbers count from 0 to ``count``; each gap says what is missing there."""
        due = 0
        before: Any = None
        for item in self.items:
            if isinstance(item, Gap):
                assert item.group == group
                assert not isinstance(before, Gap), "two gaps that are one"
                assert item.count > 0
                due += item.count
            else:
                assert item == due, f"{due} is missing before {item}"
                due += 1
            before = item
        assert due == count


class SlowHandler:
    """A server whose handler for ``it`` waits until it is let go.

    Args:
        net: Makes it, and a client called ``ann`` whose handler doubles.
        limits: Of the server.
    """

    def __init__(self, net: Net, **limits: Any) -> None:
        self.let_go = threading.Event()
        #: Set once it waits, so that whatever comes from then on has to queue.
        self.begun = threading.Event()
        self.got = Record()
        self.net = net
        self.server = net.server(limits=Limits(**limits))
        self.server.on("it", threaded=True)(self._handle)
        net.turn(self.server)
        self.client = net.client(self.server, "ann")
        self.client.on("double")(lambda number: 2 * number)
        net.turn(self.client)
        net.expect_members(self.server, 1)

    def _handle(self, client: ClientInfo, message: Any) -> None:
        self.begun.set()
        assert self.let_go.wait(PATIENCE)
        self.got(message[0])

    @property
    def link(self) -> Any:
        """The server's record of the client."""
        return bare(self.server)._members.look_up("ann")

    @property
    def waiting(self) -> int:
        """Messages that were read and not handled."""
        inbox = self.link.inbox
        return sum(len(e.bodies) for e in list(inbox) if hasattr(e, "bodies"))
