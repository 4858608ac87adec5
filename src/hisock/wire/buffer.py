"""Bytes that arrive in pieces, joined without copying a long message twice over.

Knows nothing of headers: whoever reads says how many bytes are still missing.
"""

from __future__ import annotations

__all__ = ("PieceBuffer",)


class PieceBuffer:
    """Holds the beginning of a message until the rest of it has come.

    Memory grows only with bytes that really came, never with a length that the
    other side claimed (CWE-789).
    """

    __slots__ = ("_held", "_missing")

    def __init__(self) -> None:
        self._held: bytearray | bytes = b""
        self._missing = 0

    def __len__(self) -> int:
        return len(self._held)

    def join(self, data: bytes) -> bytes | None:
        """Everything held and ``data``, or ``None`` while bytes are still missing."""
        if not self._held:
            return data
        if len(data) < self._missing:
            # A list of pieces would cost 40 bytes each to somebody who sends one
            # byte at a time; a bytearray costs one.
            if not isinstance(self._held, bytearray):
                self._held = bytearray(self._held)
            self._held += data
            self._missing -= len(data)
            return None
        whole = b"".join((self._held, data))
        self._held = b""
        return whole

    def keep(self, rest: bytes, missing: int) -> None:
        """Hold ``rest`` until at least ``missing`` more bytes have come."""
        self._held = rest
        self._missing = missing
