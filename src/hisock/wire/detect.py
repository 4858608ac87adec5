"""Which wire a peer speaks, from its first byte.

On this version's port only TCP clients are served, and they begin with a digit.
"""

from __future__ import annotations

__all__ = ("Wire", "detect")

from enum import Enum


class Wire(Enum):
    """A way of writing messages."""

    CLASSIC = "classic"


def detect(first: bytes) -> Wire | None:
    """The wire that begins with this byte, or ``None`` for a stranger."""
    return Wire.CLASSIC if first[:1].isdigit() else None
