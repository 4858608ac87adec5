"""Calls and streams on one link: ids, what waits for an answer, credit.

Pure rules. No sockets, no clock. A request of ours is an ``Asked`` until it is
answered; one of the peer is an ``Answering`` until our last word on it.
"""

from __future__ import annotations

__all__ = ("DEEPEST", "WINDOW", "Answering", "Asked", "Requests")

from collections import deque
from collections.abc import Callable
from typing import Final

from hisock.errors import Overloaded, RemoteProtocolError
from hisock.wire.compact import LARGE
from hisock.wire.frames import (
    Cancel,
    Credit,
    End,
    Failure,
    Item,
    Reply,
    Request,
)

#: Items that the producer of a stream may be ahead of its reader.
WINDOW: Final = 64
#: How often calls may be made on behalf of calls made on behalf of calls.
DEEPEST: Final = 16
#: How many such may be open: each runs beside what the link's order would let run.
_WIDEST: Final = 4 * DEEPEST
#: What credit a peer may pile up; far more than anybody can use.
_MOST_CREDIT: Final = 2**31


def _nobody_waits() -> None:
    """Nobody has to be woken."""


def _content_of(frame: Reply | Item) -> bytes | memoryview:
    """A copy that keeps no whole frame alive; large content all but is its frame, and
    is not copied once more (bench/large.py)."""
    content = frame.content
    return bytes(content) if len(content) < LARGE else memoryview(content)


class Asked:
    """A call or stream of ours.

    Attributes:
        id: Its number.
        command: What was asked for, for error texts.
        depth: Calls of the peer that this one is made on behalf of, one within another,
            the outermost aside.
        is_stream: Whether items come, or one reply.
        answers: What came and nobody has taken yet, packed: the reply, or items.
        failure: Why nothing more comes.
        is_done: Whether nothing more comes.
        wake: Called when something came; short, and takes no lock of ours.
    """

    __slots__ = (
        "_owed",
        "answers",
        "command",
        "depth",
        "failure",
        "id",
        "is_done",
        "is_stream",
        "wake",
    )

    def __init__(self, number: int, command: str, is_stream: bool) -> None:
        self.id = number
        self.depth = 0
        self.command = command
        self.is_stream = is_stream
        self.answers: deque[bytes | memoryview] = deque()
        self.failure: Failure | Exception | None = None
        self.is_done = False
        self.wake: Callable[[], None] = _nobody_waits
        self._owed = 0

    def take(self) -> tuple[bytes | memoryview, Credit | None]:
        """The next item of a stream, and the credit that is due to its producer."""
        item = self.answers.popleft()
        self._owed += 1
        if self._owed < WINDOW // 2 or self.is_done:
            return item, None
        credit = Credit(self.id, self._owed)
        self._owed = 0
        return item, credit

    def fail(self, error: Failure | Exception) -> None:
        """Nothing more comes."""
        self.failure = error
        self.is_done = True


class Answering:
    """A call or stream of the peer.

    Attributes:
        id: Its number.
        command: What is asked for.
        is_stream: Whether items are wanted, or one reply.
        credit: Items that may be sent.
        depth: As above; 0 for one that is on nobody's behalf.
        is_over: Whether nobody wants an answer any more: cancelled, or given.
        wake: Called when credit came, or the cancellation; as above.
    """

    __slots__ = ("command", "credit", "depth", "id", "is_over", "is_stream", "wake")

    def __init__(self, request: Request, depth: int) -> None:
        self.id = request.id
        self.depth = depth
        self.command = request.command
        self.is_stream = request.stream > 0
        self.credit = request.stream
        self.is_over = False
        self.wake: Callable[[], None] = _nobody_waits


class Requests:
    """All calls and streams of one link.

    Args:
        by_client: Whether this side is the client: its ids are odd, a server's even.
        limit: How many may be open in each direction; 0 for any number.

    Attributes:
        asked: Ours, by id.
        answering: The peer's, by id.
        late: Answers that came when nobody waited for them any more.
    """

    __slots__ = (
        "_limit",
        "_newest",
        "_next",
        "answering",
        "asked",
        "late",
    )

    def __init__(self, *, by_client: bool, limit: int) -> None:
        self._next = 1 if by_client else 2
        self._newest = 0
        self._limit = limit
        self.asked: dict[int, Asked] = {}
        self.answering: dict[int, Answering] = {}
        self.late = 0

    def ask(
        self, command: str, is_stream: bool = False, within: int | None = None
    ) -> Asked:
        """Begin a call or stream.

        Args:
            command: What is asked for.
            is_stream: Whether items are to come.
            within: The peer's open request on whose behalf this is.

        Raises:
            Overloaded: Too many wait for an answer already.
        """
        if 0 < self._limit <= len(self.asked):
            raise Overloaded(
                f"{len(self.asked)} calls and streams wait for an answer already"
            )
        number = self._next
        asked = Asked(number, command, is_stream)
        if within is not None and (behind := self.answering.get(within)) is not None:
            asked.depth = behind.depth
        self._next = number + 2
        self.asked[number] = asked
        return asked

    def forget(self, asked: Asked) -> bool:
        """Wait no longer; whether the peer may still be at it."""
        if self.asked.get(asked.id) is not asked:
            return False
        del self.asked[asked.id]
        return not asked.is_done

    def announce(self, request: Request) -> None:
        """A request of the peer has come; its turn may be later.

        Known from here on, so that credit and a cancellation may overtake its turn.

        Raises:
            RemoteProtocolError: Its id is not the peer's to give, or was given before.
        """
        if request.id % 2 == self._next % 2 or request.id <= self._newest:
            raise RemoteProtocolError(
                f"the id {request.id} of a request is not new, or not the sender's"
            )
        self._newest = request.id
        if not 0 < self._limit <= len(self.answering):
            ours = None if request.within is None else self.asked.get(request.within)
            depth = 0 if ours is None else ours.depth + 1
            self.answering[request.id] = Answering(request, depth)

    def begin(self, number: int) -> Answering | None:
        """The turn of a request has come; ``None`` if there were too many."""
        return self.answering.get(number)

    def nests_too_much(self, answering: Answering) -> bool:
        """Whether a request is too deep within others, or one of too many such."""
        if answering.depth > DEEPEST:
            return True
        open_ones = list(self.answering.values())
        return sum(each.depth > 0 for each in open_ones) > _WIDEST

    def finish(self, answering: Answering) -> bool:
        """Our last word on a request is about to leave; whether anybody wants it."""
        if self.answering.get(answering.id) is answering:  # of this session
            del self.answering[answering.id]
        was_over, answering.is_over = answering.is_over, True
        return not was_over

    def feed(self, frame: Reply | Failure | Item | End | Credit | Cancel) -> None:
        """Take an answer, or what steers a stream, and wake whoever waits for it.

        Raises:
            RemoteProtocolError: The peer sent more items than it had credit for, or an
                answer of the wrong kind.
        """
        if isinstance(frame, Reply):
            asked = self.asked.get(frame.id)
            if asked is not None and not asked.is_stream:
                # What most answers are (bench/calls.py).
                asked.answers.append(_content_of(frame))
                asked.is_done = True
                del self.asked[frame.id]
                asked.wake()
                return
        elif isinstance(frame, Credit | Cancel):
            self._steer(frame)
            return
        asked = self.asked.get(frame.id)
        if asked is None:
            self.late += 1
            return
        self._take(asked, frame)
        asked.wake()

    def _take(self, asked: Asked, frame: Reply | Failure | Item | End) -> None:
        """Take what is no reply to a call."""
        match frame:
            case Item() if asked.is_stream:
                if len(asked.answers) >= WINDOW:
                    raise RemoteProtocolError("a stream came without credit")
                asked.answers.append(_content_of(frame))
                return
            case End() if asked.is_stream:
                pass
            case Failure():
                asked.failure = frame
            case _:
                raise RemoteProtocolError(
                    f"{type(frame).__name__} is no answer to {asked.command!r:.64}"
                )
        asked.is_done = True
        del self.asked[asked.id]

    def _steer(self, frame: Credit | Cancel) -> None:
        answering = self.answering.get(frame.id)
        if answering is None:
            return  # our last word is already on its way
        if isinstance(frame, Cancel):
            answering.is_over = True
        else:
            answering.credit = min(answering.credit + frame.n, _MOST_CREDIT)
        answering.wake()

    def fail_all(self, error: Exception) -> None:
        """The link is over; whoever waits is woken."""
        self.fail_asked(error)
        answering, self.answering = self.answering, {}
        for theirs in answering.values():
            theirs.is_over = True
            theirs.wake()

    def fail_asked(self, error: Exception) -> list[Asked]:
        """No answer will be heard; whoever waits for one is woken. Whose they were."""
        asked, self.asked = self.asked, {}
        for mine in asked.values():
            mine.fail(error)
            mine.wake()
        return [*asked.values()]
