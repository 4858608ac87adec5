"""The side that asks: what a call came to, and a stream as an iterator."""

from __future__ import annotations

__all__ = (
    "Stream",
    "begin",
    "cast_of",
    "outcome",
    "packed",
    "raise_failure",
    "reader_for",
    "serving_on",
)

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar

from hisock.engine.calls import SERVING
from hisock.engine.link import Link
from hisock.errors import InvalidOption, RemoteError, RequestTimeout
from hisock.handlers.cast import Cast, cast_for, unpack
from hisock.session.requests import WINDOW, Asked
from hisock.wire import compact
from hisock.wire.compact import Encoded
from hisock.wire.frames import Cancel, Credit, Failure

T = TypeVar("T")

#: What is packed without running any code of the program's.
_PLAIN: Final = frozenset({bytes, str, int, float, bool, type(None)})

if TYPE_CHECKING:

    class Asker(Protocol):
        """What a stream asks of the engine it reads from."""

        def wait(self, asked: Asked, timeout: float | None) -> None:
            """Wait until something comes, at most that many seconds."""

        def give_up(self, asked: Asked) -> None:
            """Wait no longer for an answer, and tell the other side."""

        def tell(self, asked: Asked, frame: Credit | Cancel) -> None:
            """Send what steers a stream."""


def cast_of(kind: Any) -> Cast | None:
    """The conversion to what ``type=`` asks for; ``None`` leaves content as sent.

    Raises:
        InvalidOption: Nothing converts to it.
    """
    try:
        return cast_for(kind)
    except (KeyError, TypeError) as error:
        raise InvalidOption(
            f"nothing converts to type={kind!r:.80} ({error})"
        ) from None


def packed(content: Any) -> Any:
    """Content for ``begin``, with all that must not be done under the lock.

    Raises:
        NotSendable: It cannot be sent.
    """
    return content if type(content) in _PLAIN else compact.raw_or_raise(content)


def serving_on(link: Link) -> int | None:
    """The open call of that peer on whose behalf this code runs."""
    serving = SERVING.get()
    return serving[1] if serving and serving[0] is link else None


def begin(
    link: Link,
    command: str,
    content: Any,
    is_stream: bool,
    ttl: int | None,
    within: int | None,
) -> tuple[Asked, Encoded]:
    """Begin a request, under the lock: ids have to leave in order.

    Returns:
        It, and the frame that the caller sends.

    Raises:
        ReservedCommand, NotSendable, MessageTooLarge, Overloaded: It cannot be sent.
    """
    requests = link.connection.requests
    assert requests is not None
    asked = requests.ask(command, is_stream, within)
    stream = WINDOW if is_stream else 0
    try:
        frame = link.writer.request(asked.id, command, content, stream, ttl, within)
    except BaseException:
        requests.forget(asked)
        raise
    return asked, frame


def reader_for(kind: Any) -> Callable[[Any], Any]:
    """What turns packed content into what a call's ``type=`` asks for.

    Raises:
        InvalidOption: Nothing converts to it.
    """
    if kind is None:
        return unpack
    cast = cast_of(kind)
    return cast.from_packed if cast else unpack


def outcome(asked: Asked, read: Callable[[Any], Any]) -> Any:
    """The reply to a call that is done.

    Raises:
        RemoteError: The other side refused or failed.
        SessionLost: The connection ended first.
        ConversionError: The reply is not of the type that was asked for.
    """
    if asked.failure is not None:
        raise_failure(asked)
    return read(asked.answers.popleft())


def raise_failure(asked: Asked) -> None:
    """Raise what a call or stream failed with.

    Raises:
        RemoteError: The other side refused or failed.
        Exception: Whatever ended it on this side.
    """
    failure = asked.failure
    if isinstance(failure, Failure):
        text = failure.text or f"the handler of {asked.command!r} failed"
        raise RemoteError(failure.code, text, unpack(failure.data))
    assert failure is not None
    raise failure


class Stream(Generic[T]):
    """The items of a stream, as they come; closing it cancels the producer.

    Iterate over it, or use it with ``with``; a blocking wait for each item.
    """

    def __init__(
        self,
        asker: Asker,
        asked: Asked,
        read: Callable[[Any], T],
        timeout: float | None,
    ) -> None:
        self._asker = asker
        self._asked = asked
        self._read = read
        self._timeout = timeout
        self._is_over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """The next item; waits for it.

        Raises:
            RemoteError: The producer failed, after what came before.
            RequestTimeout: No item came in time; the stream is cancelled.
            SessionLost: The connection ended.
            ConversionError: The item is not of the type that was asked for.
        """
        asked = self._asked
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            if self._is_over:
                raise StopIteration
            if asked.answers:
                return self._take()
            if asked.is_done:
                self._is_over = True
                if asked.failure is not None:
                    raise_failure(asked)
                raise StopIteration
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                self.close()
                raise RequestTimeout(
                    f"no item of {asked.command!r} came within {self._timeout:g} s"
                )
            self._asker.wait(asked, left)

    def _take(self) -> T:
        item, credit = self._asked.take()
        if credit is not None:
            self._asker.tell(self._asked, credit)
        return self._read(item)

    def close(self) -> None:
        """Read no more: the other side stops producing. Again is no error."""
        if not self._is_over:
            self._is_over = True
            self._asker.give_up(self._asked)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):
            self.close()
