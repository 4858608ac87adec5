"""Cuts many frames of one length in one go, where a stream has many in a row.

Knows frames only as bytes that begin in the same way.
"""

from __future__ import annotations

__all__ = ("IN_A_ROW", "cut_alike")

from struct import Struct
from typing import Final

#: Frames of one length in a row after which it is worth to look for more of them.
IN_A_ROW: Final = 4
#: Frames that are cut at once.
_GROUP: Final = 32
#: Length of a frame → how a group of them is cut. Each takes some KiB.
_GROUPS: Final[dict[tuple[int, int], Struct]] = {}
_REMEMBERED: Final = 64


def cut_alike(
    data: bytes, at: int, head: bytes, header: int, length: int, frames: list[bytes]
) -> int:
    """Append all that follow in groups; where the first begins that does not.

    One look at each place of their beginnings, instead of one at each of them
    (bench/typed.py).

    Args:
        data: What was read.
        at: Where the next frame begins, with its header.
        head: How the one before it began, which tells its length.
        header: Bytes of that which are not appended.
        length: Of the rest of it.
        frames: Gets them, without their headers.
    """
    step = header + length
    size = len(data)
    stop = at + _GROUP * step
    last = stop - step
    if stop > size or data[last : last + len(head)] != head:
        return at
    group = _GROUPS.get((header, step)) or _learn(header, step)
    columns = [(place, head[place : place + 1] * _GROUP) for place in range(len(head))]
    while stop <= size:
        for place, column in columns:
            if data[at + place : stop : step] != column:
                return at
        frames += group.unpack_from(data, at)
        at, stop = stop, stop + _GROUP * step
    return at


def _learn(header: int, step: int) -> Struct:
    if len(_GROUPS) >= _REMEMBERED:
        _GROUPS.clear()
    group = _GROUPS[header, step] = Struct(f"{header}x{step - header}s" * _GROUP)
    return group
