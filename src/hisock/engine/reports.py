"""What went wrong in handlers: raised, given to ``on_error``, or logged."""

from __future__ import annotations

__all__ = ("Reports",)

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hisock.engine.failing import explain_conversion
from hisock.engine.inbox import Mail
from hisock.engine.repeats import Repeats
from hisock.errors import (
    ConversionError,
    Forbidden,
    HandlerError,
    HiSockError,
    RateLimited,
    Refused,
    Undelivered,
    UnknownCommand,
)
from hisock.handlers.dispatch import unknown_command
from hisock.handlers.table import HandlerEntry, HandlerTable
from hisock.types import Message

if TYPE_CHECKING:
    import logging


class Reports:
    """The one place where a server or client tells of failures.

    Args:
        name: What the server or client is called in texts.
        table: The handlers, ``on_error`` among them.
        log: Where it goes when nobody else wants it.
        raises: Whether an exception comes out of the turn instead.

    Attributes:
        forbidden_messages: Those whose sender may not, or not so often.
        handler_errors: Exceptions of handlers, and of what ``every`` calls.
        undelivered_messages: Those of clients that are gone for good.
        unknown_commands: Messages that nobody handles.
        watch: Told of everything, too: a code, a text, which handler, and the line
            where it was raised, as far as there is one.
    """

    __slots__ = (
        "_log",
        "_name",
        "_repeats",
        "_table",
        "forbidden_messages",
        "handler_errors",
        "raises",
        "undelivered_messages",
        "unknown_commands",
        "watch",
    )

    def __init__(
        self, name: str, table: HandlerTable, log: logging.Logger, *, raises: bool
    ) -> None:
        self._name = name
        self._table = table
        self._log = log
        self.raises = raises
        self._repeats = Repeats()
        self.forbidden_messages = self.handler_errors = 0
        self.undelivered_messages = self.unknown_commands = 0
        self.watch: Callable[[str, str, str, str], None] | None = None

    def failed(self, client: Any, entry: HandlerEntry, error: Exception) -> None:
        """A handler raised, or its message could not be converted."""
        self.handler_errors += 1
        error = explain_conversion(entry, error)
        self._note_raised(error, entry.signature.where)
        if self.raises:
            raise error
        where = entry.signature.where
        who = "" if client is None else f" for {dict(client)}"
        if self._table.on_error is not None:
            text = f"handler {where} failed{who}: {error}"
            self._tell(HandlerError(text, client, entry.command, where), error)
        elif isinstance(error, ConversionError):
            if count := self._repeats.due(entry.command):
                text = "a message%s was refused (%d): %s"
                self._log.warning(text, who.replace(" for", " of"), count, error)
        else:
            self._log.error("handler %s failed%s", where, who, exc_info=error)

    def failed_alone(self, function: Callable[..., Any], error: Exception) -> None:
        """What ``every`` calls raised."""
        self.handler_errors += 1
        where = getattr(function, "__qualname__", repr(function))
        self._note_raised(error, where)
        if self.raises:
            raise error
        if self._table.on_error is not None:
            text = f"{where} failed: {error}"
            self._tell(HandlerError(text, None, "", where), error)
        else:
            self._log.error("%s failed", where, exc_info=error)

    def blocked(self, where: str, seconds: float) -> None:
        """A handler kept the loop from everything else for a while."""
        self._note("blocked", f"it blocked the loop for {seconds:.2f} s", where)
        if count := self._repeats.due(where):
            text = (
                "handler %s blocked the loop for %.2f s (%d); await what takes long, "
                "or register it with threaded=True"
            )
            self._log.warning(text, where, seconds, count)

    def unclaimed(self, client: Any, mail: Mail) -> None:
        """A server's message that nobody handles; ``message`` may still see it."""
        if self._table.event("message") is not None:
            return
        self.unknown_commands += 1
        command = mail.command or ""
        self._note("unknown_command", unknown_command(self._table, command))
        if self._table.on_error is not None:
            text = f"{self._name}: {unknown_command(self._table, command)}"
            self._tell(UnknownCommand(text, client, command), None)
        elif count := self._repeats.due(command[:64]):
            text = unknown_command(self._table, command)
            self._log.warning("%s: %s (%d)", self._name, text, count)

    def gap(self, client: Any, number: int) -> None:
        """A client dropped what it had for us, as its program allowed."""
        if count := self._repeats.due("gap"):
            text = "%s: %s dropped %d messages while it could not send them (%d)"
            self._log.info(text, self._name, dict(client), number, count)

    def forbidden(self, client: Any, entry: HandlerEntry) -> None:
        """A client may not have its message handled, which is dropped."""
        self.forbidden_messages += 1
        where = entry.signature.where
        text = (
            f"{self._name}: {dict(client)} may not {entry.command!r:.64}; its message "
            "was dropped"
        )
        self._note("forbidden", text, where)
        if self._table.on_error is not None:
            self._tell(Forbidden(text, client, entry.command, where), None)
        elif count := self._repeats.due(("forbidden", entry.command)):
            self._log.warning("%s (%d)", text, count)

    def too_often(self, client: Any, entry: HandlerEntry) -> None:
        """A client sent a command more often than may be; the message is dropped."""
        self.forbidden_messages += 1
        where = entry.signature.where
        text = (
            f"{self._name}: {dict(client)} sends {entry.command!r:.64} more often than "
            f"{entry.options.rate}; its message was dropped"
        )
        self._note("rate_limited", text, where)
        if self._table.on_error is not None:
            self._tell(RateLimited(text, client, entry.command, where), None)
        elif count := self._repeats.due(("rate", entry.command)):
            self._log.warning("%s (%d)", text, count)

    def check_failed(
        self, check: Callable[..., Any], error: Exception, *, is_ours: bool
    ) -> None:
        """An ``authenticate`` check raised, or did not say yes or no.

        What it raised may well have the client's token in its text: the log gets no
        more of it than what it was and where, unless the error ``is_ours``.
        """
        where = str(error)
        if not is_ours:
            where = f"{type(error).__name__} at {_last_line(error)}"
        text = f"{self._name}: the check {_name_of(check)} failed: {where}"
        self._note("check_failed", text, _name_of(check))
        if self._table.on_error is not None:
            self._tell(HandlerError(text, None, "", _name_of(check)), error)
        elif count := self._repeats.due(where):
            self._log.error("%s (%d)", text, count)

    def refused(self, error: Refused) -> None:
        """The server left us the name or group we had."""
        if self._table.on_error is not None:
            self._tell(error, None)
        elif count := self._repeats.due(error.code):
            self._log.warning("%s: %s (%d)", self._name, error, count)

    def undelivered(self, client: Any, sent: Sequence[Message]) -> None:
        """A client is gone for good before all that was sent to it had arrived."""
        self.undelivered_messages += len(sent)
        text = (
            f"{self._name}: {dict(client)} is gone before {len(sent)} messages to it "
            f"were acknowledged, the first {sent[0].command!r:.64}"
        )
        self._note("undelivered", text)
        if self._table.on_error is not None:
            self._tell(Undelivered(text, client, sent), None)
        elif count := self._repeats.due("undelivered"):
            self._log.warning("%s (%d)", text, count)

    def _note(self, code: str, text: str, where: str = "", line: str = "") -> None:
        if self.watch is not None:
            self.watch(code, text, where, line)

    def _note_raised(self, error: Exception, where: str) -> None:
        if self.watch is None:
            return
        try:
            text = f"{type(error).__name__}: {error}"
        except Exception:  # it has a ``__str__`` of its own
            text = type(error).__name__
        if isinstance(error, ConversionError):
            text = text.partition(", got ")[0]  # behind it stands what was sent
        code = error.code if isinstance(error, HiSockError) else HandlerError.code
        line = "" if error.__traceback__ is None else _last_line(error)
        self.watch(code, text, where, line)

    def _tell(self, report: HandlerError | Refused, error: Exception | None) -> None:
        report.__cause__ = error
        function = self._table.on_error
        assert function is not None
        try:
            function(report)
        except Exception:
            self._log.exception("on_error itself failed, told of: %s", report)


def _last_line(error: Exception) -> str:
    """Where an exception comes from: file and line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    path = trace.tb_frame.f_code.co_filename.replace("\\", "/")
    return f"{path.rpartition('/')[2]}:{trace.tb_lineno}"


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function)[:80])
