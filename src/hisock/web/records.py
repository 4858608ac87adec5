"""What a dashboard remembers: rates, failures, the last commands of a client.

Pure, and each of them bounded. No clock: every method that needs the time takes
``now``, seconds of any monotonic clock.
"""

from __future__ import annotations

__all__ = ("TAIL", "Failures", "Series", "Tail")

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

#: Seconds of which the rates are kept.
_SECONDS: Final = 300
#: Different failures that are kept, and letters of their texts.
_FAILURES: Final = 100
_TEXT: Final = 300
#: Commands of one client that are kept, letters of each, and of what came with it.
TAIL: Final = 200
_COMMAND: Final = 100
_PAYLOAD: Final = 200
#: Seconds after which nobody asks for a tail any more.
_PATIENCE: Final = 10.0


class Series:
    """Messages a second over the last minutes, in and out; one pair for each second."""

    __slots__ = ("_pairs",)

    def __init__(self) -> None:
        self._pairs: deque[tuple[float, float]] = deque(maxlen=_SECONDS)

    def add(self, came: int, went: int, seconds: float) -> None:
        """So many messages came and went in the last ``seconds``."""
        pair = round(came / seconds, 1), round(went / seconds, 1)
        # Where nobody looked for a while, each second of it had its share.
        for _ in range(min(_SECONDS, max(1, round(seconds)))):
            self._pairs.append(pair)

    def columns(self) -> dict[str, list[float]]:
        """Both, the oldest first."""
        return {
            "in": [came for came, _ in self._pairs],
            "out": [went for _, went in self._pairs],
        }


class Failures:
    """The last different failures, each with how often it happened.

    What happens again is counted, so that no client can push all others out.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], dict[str, Any]] = {}

    def note(self, now: float, code: str, text: str, where: str, line: str) -> None:
        """Something failed.

        Args:
            now: The time.
            code: What, in a word.
            text: What, in a sentence.
            where: Which handler, with its file and line; empty for none.
            line: Where it was raised; empty for nowhere.
        """
        key = code, where, line
        before = self._known.pop(key, None)
        if len(self._known) >= _FAILURES:
            del self._known[next(iter(self._known))]
        self._known[key] = {
            "at": now,
            "code": code,
            "text": text[:_TEXT],
            "where": where,
            "line": line,
            "count": 1 + (before["count"] if before else 0),
        }

    def rows(self, now: float) -> list[dict[str, Any]]:
        """The newest first, each with its age in seconds."""
        return [
            {
                "age": round(now - row["at"], 1),
                "code": row["code"],
                "text": row["text"],
                "where": row["where"],
                "line": row["line"],
                "count": row["count"],
            }
            for row in reversed(list(self._known.values()))
        ]


class Tail:
    """The last commands of one client, kept while somebody asks for them.

    Args:
        now: The time.

    Attributes:
        number: How many came since the tail began.
    """

    __slots__ = ("_asked_at", "_payload_until", "_rows", "number")

    def __init__(self, now: float) -> None:
        self._rows: deque[dict[str, Any]] = deque(maxlen=TAIL)
        self._asked_at = now
        self._payload_until = now
        self.number = 0

    def is_over(self, now: float) -> bool:
        """Whether nobody has asked for it lately."""
        return now - self._asked_at > _PATIENCE

    def wants_payload(self, now: float) -> bool:
        """Whether somebody wants to see what comes with the commands, too."""
        return now < self._payload_until

    def note(
        self,
        now: float,
        came: Iterable[tuple[str, int, str | None]],
        skipped: int = 0,
    ) -> None:
        """Commands came: each with its bytes, and what it carries if that is wanted.

        Args:
            now: The time.
            came: The newest of them.
            skipped: How many more came before these.
        """
        self.number += skipped
        for command, size, payload in came:
            self.number += 1
            self._rows.append(
                {
                    "number": self.number,
                    "at": now,
                    "command": command[:_COMMAND],
                    "size": size,
                    "payload": None if payload is None else payload[:_PAYLOAD],
                }
            )

    def after(self, number: int, now: float, *, payload: bool) -> dict[str, Any]:
        """The commands behind one; somebody has asked, so the tail goes on.

        Args:
            number: Of the last that is known already.
            now: The time.
            payload: Whether what came with them is wanted. Nothing is kept of it
                before somebody asks, and nobody sees it who does not.
        """
        self._asked_at = now
        if payload:
            self._payload_until = now + _PATIENCE
        new = islice(reversed(self._rows), max(0, self.number - number))
        rows = [
            {
                "number": row["number"],
                "age": round(now - row["at"], 1),
                "command": row["command"],
                "size": row["size"],
                "payload": row["payload"] if payload else None,
            }
            for row in new
        ]
        return {"number": self.number, "commands": rows[::-1]}
