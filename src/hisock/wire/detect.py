"""Which wire a peer speaks, from its first byte: a digit is a TCP client, the ``G`` of
``GET`` is HTTP.
"""

from __future__ import annotations

__all__ = ("Wire", "detect")

from enum import Enum


class Wire(Enum):
    """A way of writing messages."""

    CLASSIC = "classic"
    #: A page, or a WebSocket.
    HTTP = "http"


def detect(first: bytes, alpn: str | None = None) -> Wire | None:
    """The wire that begins with this byte, or ``None`` for a stranger.

    Args:
        first: What came first.
        alpn: What both sides named in a TLS handshake (RFC 7301); who said ``http/1.1``
            means no wire of ours, whatever the bytes look like.
    """
    if first[:1] == b"G" and b"GET ".startswith(first[:4]):
        return Wire.HTTP if alpn in (None, "http/1.1") else None
    if alpn == "http/1.1":
        return None
    return Wire.CLASSIC if first[:1].isdigit() else None
