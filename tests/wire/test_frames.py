"""The vocabulary: what peers say to each other besides messages."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest

from hisock.wire import frames
from hisock.wire.frames import ClientAnswer, Frame

KINDS: tuple[Any, ...] = get_args(Frame)


def test_the_union_is_closed() -> None:
    """``Frame`` has every kind that the module defines, and nothing else."""
    defined = {name for name in frames.__all__ if name != "Frame"}

    assert defined == {kind.__name__ for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_frame_is_a_value(kind: Any) -> None:
    """Frames are frozen, slotted, and equal when they say the same."""
    fields = dataclasses.fields(kind)
    made, same = (kind(*("x" for _ in fields)) for _ in range(2))

    assert made == same
    assert not hasattr(made, "__dict__")
    for field in fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field.name, "y")


def test_an_answer_is_a_client_or_a_refusal() -> None:
    """Whoever is found needs no refusal."""
    assert ClientAnswer({"ip": ("127.0.0.1", 1)}).refusal == ""
