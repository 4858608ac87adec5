"""Messages that no handler took, kept in order for whoever asks for them."""

from __future__ import annotations

__all__ = ("Inbox", "Mail")

from collections import deque
from collections.abc import Callable
from typing import Any

from hisock.handlers.cast import Cast, unpack
from hisock.types import Limits
from hisock.wire.payload import as_text


class Mail:
    """One message without a handler.

    Args:
        command: Its command on the compact wire; ``None`` for raw content, and on the
            classic wire, where only who asks knows what the command is.
        content: The packed content, or the whole classic body.
        is_packed: Which of them.
    """

    __slots__ = ("_command", "_content", "is_packed")

    def __init__(
        self,
        command: str | None,
        content: bytes | memoryview,
        *,
        is_packed: bool = False,
    ) -> None:
        self._command = command
        self._content: Any = content  # a view only if packed
        self.is_packed = is_packed

    def __len__(self) -> int:
        return len(self._content)

    @property
    def command(self) -> str | None:
        """The command; on the classic wire the first word."""
        if self.is_packed:
            return self._command
        text: bytes = self._content
        return text[:256].partition(b" ")[0].decode(errors="replace")

    def whole(self) -> bytes:
        """All of it as hisock 1.1 writes it."""
        if not self.is_packed:
            body: bytes = self._content
            return body
        text = as_text(unpack(self._content))
        return text if self._command is None else self._command.encode() + b" " + text

    def is_for(self, command: str) -> bool:
        """Whether it is a message with this command."""
        if self.is_packed:
            return self._command == command
        text: bytes = self._content
        word = command.encode()
        rest = text[len(word) : len(word) + 1]
        return text.startswith(word) and rest in (b"", b" ")

    def content(self, command: str | None, cast: Cast | None = None) -> Any:
        """What came with the command, converted.

        Args:
            command: What it was asked for as; ``None`` for the whole of it.
            cast: The conversion; ``None`` for as sent.

        Raises:
            ConversionError: It does not fit.
        """
        if self.is_packed:
            return cast.from_packed(self._content) if cast else unpack(self._content)
        text = self._content
        if command is not None:
            text = text[len(command.encode()) + 1 :]
        return cast.from_text(text) if cast else text


class Inbox:
    """A bounded queue of whole messages.

    Args:
        limits: How many, and how many bytes.

    Attributes:
        mails: The messages, the oldest first.
    """

    __slots__ = ("_limits", "_size", "mails")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.mails: deque[Mail] = deque()
        self._size = 0

    def add(self, mail: Mail) -> list[Mail]:
        """Keep a message; those that had to go for it, the oldest first."""
        self.mails.append(mail)
        self._size += len(mail)
        gone: list[Mail] = []
        while self._is_over() and len(self.mails) > 1:
            gone.append(self.mails.popleft())
            self._size -= len(gone[-1])
        return gone

    def _is_over(self) -> bool:
        limits = self._limits
        too_many = 0 < limits.unclaimed_messages < len(self.mails)
        return too_many or 0 < limits.unclaimed < self._size

    def take(self, wanted: Callable[[Mail], bool] | None) -> Mail | None:
        """Take the oldest that is wanted out; ``None`` if there is none."""
        for index, mail in enumerate(self.mails):
            if wanted is None or wanted(mail):
                del self.mails[index]
                self._size -= len(mail)
                return mail
        return None
