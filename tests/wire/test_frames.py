"""The vocabulary: what peers say to each other besides messages."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import msgspec
import pytest

from hisock.wire import frames
from hisock.wire.frames import (
    ClientAnswer,
    ClientFrame,
    FirstFrame,
    Frame,
    PackedFrame,
)

PACKED: tuple[Any, ...] = get_args(PackedFrame)
#: Those that both wires have stand in both unions.
KINDS: tuple[Any, ...] = (
    *PACKED,
    *(kind for kind in get_args(Frame) if kind not in PACKED),
    *(kind for kind in get_args(FirstFrame) if kind not in PACKED),
)
NO_KINDS = {
    *("Value", "ClientFrame", "FirstFrame", "Frame", "PackedFrame"),
    *("PROTO", "LAST_NUMBERED", "BYE_WORDS", "message_of"),
}


def field_names(kind: Any) -> tuple[str, ...]:
    """What a frame says, in order."""
    if issubclass(kind, msgspec.Struct):
        return tuple(kind.__struct_fields__)
    return tuple(field.name for field in dataclasses.fields(kind))


def test_the_union_is_closed() -> None:
    """The unions have every kind that the module defines, and nothing else."""
    defined = set(frames.__all__) - NO_KINDS

    assert defined == {kind.__name__ for kind in KINDS}


def test_what_clients_say_is_packed() -> None:
    """A client says nothing in order that the compact wire does not know."""
    assert set(get_args(ClientFrame)) < set(PACKED)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_frame_is_a_value(kind: Any) -> None:
    """Frames are frozen, slotted, and equal when they say the same."""
    fields = field_names(kind)
    made, same = (kind(*("x" for _ in fields)) for _ in range(2))
    frozen = (
        dataclasses.FrozenInstanceError
        if dataclasses.is_dataclass(kind)
        else AttributeError  # what a Struct raises
    )

    assert made == same
    assert not hasattr(made, "__dict__")
    for name in fields:
        with pytest.raises(frozen):
            setattr(made, name, "y")


def test_a_kind_is_one_number() -> None:
    """No two kinds share a number; below 32 they are counted, from 32 they are not."""
    numbers = [kind.__struct_config__.tag for kind in PACKED]

    assert [*range(1, 16), *range(32, 36)] == sorted(numbers)
    assert all(kind.__struct_config__.array_like for kind in PACKED)


def test_an_answer_is_a_client_or_a_refusal() -> None:
    """Whoever is found needs no refusal."""
    assert ClientAnswer({"ip": ("127.0.0.1", 1)}).refusal == ""
