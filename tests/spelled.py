"""How a parameter of a test is spelled in its id: the same in every process."""

from __future__ import annotations

__all__ = ("spelled",)

import re


def spelled(value: object) -> str:
    """What ``repr`` says, without addresses: those differ from run to run."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
