"""Whose line a warning shows: the first one outside of hisock."""

from __future__ import annotations

__all__ = ("users_line",)

import sys
from types import FrameType


def users_line() -> int:
    """The ``stacklevel`` with which a warning of the caller shows the user's line."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
        level += 1
    return level


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "hisock"
