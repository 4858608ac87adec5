"""What goes both ways in one run: numbered messages, and who received which.

It knows no network and no library: a face takes messages here, sends them, and enters
what it receives.
"""

from __future__ import annotations

__all__ = ("COMMAND", "END", "Book", "Traffic", "opposite")

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from random import Random
from typing import Any, Final
from zlib import crc32

from .pipes import Direction

COMMAND: Final = "n"
#: The last message of each direction; its content is how many came before it.
END: Final = "end"
_FAILURES: Final = 20
#: How far beyond a cut the senders may be, in parts of the way to the next.
_AHEAD: Final = 0.8


class Book:
    """What one side has received, and whether it is exactly the next each time.

    Args:
        direction: The way the messages go.
        count: How many are sent that way.
        took: Called after each message that was entered.
        fail: Called with what is wrong.

    Attributes:
        received: Messages that came, each counted once.
        duplicated: Messages that came again.
        out_of_order: Messages that came after a later one.
        corrupt: Messages that are not what was sent.
        has_ended: Whether the other side has said that this was all.
        next: The number that should come next.
    """

    def __init__(
        self,
        direction: Direction,
        count: int,
        took: Callable[[], None],
        fail: Callable[[str], None],
    ) -> None:
        self.received = 0
        self.duplicated = 0
        self.out_of_order = 0
        self.corrupt = 0
        self.has_ended = False
        self._direction = direction
        self._count = count
        self._took = took
        self._fail = fail
        #: Numbers that others have overtaken.
        self._missing: set[int] = set()
        self.next = 1

    @property
    def lost(self) -> int:
        """How many never came."""
        return self._count - self.next + 1 + len(self._missing)

    def take(self, content: Any) -> None:
        """Enter a message."""
        match content:
            case [int() as number, int() as checksum, bytes() as payload]:
                if crc32(payload, number) != checksum:
                    self.corrupt += 1
                    self._wrong(f"{number} is not what was sent")
            case _:
                self.corrupt += 1
                self._wrong(f"{content!r:.80} is no message")
                return
        if number == self.next and not self.has_ended:
            self.next += 1
            self.received += 1
        else:
            self._take_other(number)
        self._took()

    def _take_other(self, number: int) -> None:
        if number in self._missing:
            self._missing.remove(number)
            self.received += 1
            self.out_of_order += 1
            self._wrong(f"{number} came after {self.next - 1}")
        elif number < self.next or self.has_ended:
            self.duplicated += 1
            self._wrong(f"{number} came again, the next is {self.next}")
        else:
            self._missing.update(range(self.next, number))
            self._wrong(f"{number} came, the next is {self.next}")
            self.next = number + 1
            self.received += 1

    def end(self, count: Any) -> None:
        """The other side says that it has sent everything."""
        if self.has_ended or count != self._count:
            self._wrong(f"the end came as {count!r:.80} of {self._count}")
        if self.next <= self._count:
            self._wrong(f"the end came before {self.next}")
        self.has_ended = True
        self._took()

    def _wrong(self, what: str) -> None:
        self._fail(f"{self._direction}: {what}")


class Traffic:
    """Messages for both directions, how far they are, and what went wrong.

    Args:
        messages: How many in both directions together.
        cuts: How many times the senders pause unless ``open_stage`` is called in time:
            so the cuts are spread evenly, however fast everything is.
        seed: The same seed gives the same messages.

    Attributes:
        address: Where the server listens, once it does.
        member: The client as the server knows it, once it has joined.
        is_over: Set when the client should end.
        is_closing: Set when the server should, too.
        last_cut: What the network did last, for whoever reads of a failure.
    """

    def __init__(self, messages: int, cuts: int, seed: int) -> None:
        self.count = messages // 2
        self.seed = seed
        self.address: Future[tuple[str, int]] = Future()
        self.member: Future[Any] = Future()
        self.is_over = threading.Event()
        self.is_closing = threading.Event()
        self.failures: list[str] = []
        self.last_cut = "no cut"
        self.session_losses = 0
        self.resumes = 0
        self.sent = 0
        self.books = {way: self._book(way) for way in _WAYS}
        self._entered = 0
        self._stages = cuts
        self._changed = threading.Condition()
        self._next_mark = self._limit = 0
        self.open_stage(0)

    def _book(self, direction: Direction) -> Book:
        return Book(direction, self.count, self._took, self.fail)

    # --- how far it is ---------------------------------------------------------

    @property
    def received(self) -> int:
        """Messages that came, both ways."""
        return sum(book.received for book in self.books.values())

    @property
    def is_done(self) -> bool:
        """Whether both sides have everything."""
        return all(book.has_ended for book in self.books.values())

    def _took(self) -> None:
        with self._changed:
            self._entered += 1
            if self._entered >= self._next_mark or self.is_done:
                self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait for the end or a failure; whether there is one."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.is_done or bool(self.failures), timeout
            )

    def fail(self, what: str) -> None:
        """Note what went wrong."""
        with self._changed:
            if len(self.failures) < _FAILURES:
                self.failures.append(
                    f"{what} (after {self._entered} messages and {self.last_cut})"
                )
            self._changed.notify_all()

    def end(self) -> None:
        """Have the client end, and whoever waits for anything here."""
        self.is_over.set()
        with self._changed:
            self._changed.notify_all()
        for what in (self.address, self.member):
            what.cancel()

    def note_resume(self) -> None:
        """The client says that it is back."""
        with self._changed:
            self.resumes += 1
            self._changed.notify_all()

    def wait_for_resume(self, before: int, timeout: float) -> bool:
        """Wait until the client was back more often than ``before``; whether it was."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.is_over.is_set() or self.resumes > before, timeout
            )

    def lose_session(self, reason: object) -> None:
        """Note that a session was lost."""
        self.session_losses += 1
        self.fail(f"the session is lost: {reason}")

    # --- stages ----------------------------------------------------------------

    def open_stage(self, stage: int) -> None:
        """Let the senders go on, up to the next cut and some way beyond it.

        Less than up to the one after that: the client has to come back in between, or
        every delay before it tries again would be twice the last.
        """
        step = 2 * self.count / (self._stages + 1)
        with self._changed:
            self._next_mark = int(step * (stage + 1))
            self._limit = self.count
            if stage < self._stages:  # something is left to cut
                self._limit = int(step * (stage + 1 + _AHEAD) / 2)
            self._changed.notify_all()

    def wait_for_stage(self) -> bool:
        """Wait for as many messages as there should be before the next cut.

        Returns:
            Whether there are: else all is over.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self.is_over.is_set() or self._entered >= self._next_mark
            )
        return not self.is_over.is_set()

    # --- sending ---------------------------------------------------------------

    def messages(self, direction: Direction) -> Iterator[list[Any]]:
        """What is to be sent one way, in order."""
        rng = Random(f"{self.seed} {direction}")
        for number in range(1, self.count + 1):
            payload = rng.randbytes(_size(rng.random(), rng.random()))
            yield [number, crc32(payload, number), payload]

    def may_send(self, number: int) -> bool:
        """Whether a message may be sent yet."""
        return number <= self._limit

    def wait_to_send(self, number: int) -> bool:
        """Wait until a message may be sent; whether it may: else all is over."""
        if number > self._limit:
            with self._changed:
                self._changed.wait_for(
                    lambda: self.is_over.is_set() or number <= self._limit
                )
        return not self.is_over.is_set()

    def count_sent(self) -> None:
        """Note that a message was accepted."""
        with self._changed:
            self.sent += 1


_WAYS: Final[tuple[Direction, ...]] = ("up", "down")


def opposite(direction: Direction) -> Direction:
    """The opposite direction."""
    return "down" if direction == "up" else "up"


def _size(which: float, how_much: float) -> int:
    """Bytes of a payload: few, now and then many, rarely very many."""
    if which < 0.001:
        return 200 * 1024
    if which < 0.01:
        return 40 * 1024
    return int(how_much * 301)
