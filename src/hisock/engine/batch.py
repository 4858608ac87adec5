"""What threads collect in ``with client.batch()``, each its own."""

from __future__ import annotations

__all__ = ("Batch", "Batches")

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hisock.session.resume import Block, Written


class Batch:
    """Frames that one thread has collected, and their bytes."""

    __slots__ = ("frames", "size")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.size = 0


class Batches:
    """Frames that wait for the end of a batch, by thread.

    Args:
        write: Writes what one thread has collected, joined.

    Attributes:
        open: The batches that are being collected; empty most of the time.
    """

    __slots__ = ("_write", "open")

    def __init__(self, write: Callable[[Written], None]) -> None:
        self._write = write
        self.open: dict[int, Batch] = {}

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Collect what this thread sends in this block and write it together."""
        me = threading.get_ident()
        if me in self.open:
            yield  # an outer batch writes it
            return
        self.open[me] = Batch()
        try:
            try:
                yield
            finally:
                self.flush()
        finally:
            del self.open[me]

    def take(self) -> Block | None:
        """Everything this thread has collected; the caller writes it."""
        batch = self.open.get(threading.get_ident())
        if batch is None or not batch.frames:
            return None
        block = Block(len(batch.frames), b"".join(batch.frames))
        batch.frames.clear()
        batch.size = 0
        return block

    def flush(self) -> None:
        """Write what this thread has collected; what cannot be written is lost, and
        the exception tells."""
        block = self.take()
        if block is not None:
            self._write(block)
