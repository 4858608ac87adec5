"""The states of a connection and what leads from one to the next.

Rule 1: everything that changes a connection's state stands in this table.
Rule 2: an input that the table lacks for a state is a mistake of ours and raises.
"""

from __future__ import annotations

__all__ = ("TRANSITIONS", "Input", "State", "next_state")

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class State(Enum):
    """Where a connection stands."""

    #: The server waits for the client's hello.
    HELLO = "hello"
    #: The same, of one that began as HTTP and is told why it is not let in.
    UPGRADED = "upgraded"
    #: The client has said hello, and has to prove who it is.
    ASKED = "asked"
    #: Messages go both ways.
    OPEN = "open"
    #: The goodbye is said; what still comes is thrown away until the end or 1 s.
    CLOSING = "closing"
    #: Over.
    CLOSED = "closed"


class Input(Enum):
    """What can happen to a connection."""

    UPGRADE = "it begins as HTTP"
    HELLO = "the hello is complete"
    GUARD = "it is, and proof has to follow"
    ADMIT = "the proof is good enough"
    VIOLATION = "bytes came that are not hisock's"
    EOF = "the other side sends no more"
    LOST = "the link broke"
    EXPIRED = "the deadline of this state passed"
    CLOSE = "this side ends it"


_U, _A, _O = State.UPGRADED, State.ASKED, State.OPEN
_G, _C = State.CLOSING, State.CLOSED

TRANSITIONS: Mapping[State, Mapping[Input, State]] = MappingProxyType(
    {
        State.HELLO: {
            Input.UPGRADE: _U,
            Input.HELLO: _O,
            Input.GUARD: _A,
            # A stranger gets no answer: nothing to amplify, nothing to probe.
            Input.VIOLATION: _C,
            Input.EOF: _C,
            Input.LOST: _C,
            Input.EXPIRED: _C,
            Input.CLOSE: _G,
        },
        State.UPGRADED: {
            Input.HELLO: _O,
            Input.GUARD: _A,
            Input.VIOLATION: _G,
            Input.EOF: _C,
            Input.LOST: _C,
            Input.EXPIRED: _G,
            Input.CLOSE: _G,
        },
        State.ASKED: {
            Input.ADMIT: _O,
            Input.VIOLATION: _G,
            Input.EOF: _G,
            Input.LOST: _C,
            Input.CLOSE: _G,
        },
        State.OPEN: {
            Input.VIOLATION: _G,
            Input.EOF: _G,
            Input.LOST: _C,
            Input.CLOSE: _G,
        },
        State.CLOSING: {
            Input.EOF: _C,
            Input.LOST: _C,
            Input.EXPIRED: _C,
            Input.CLOSE: _G,
        },
        State.CLOSED: {},
    }
)


def next_state(state: State, happened: Input) -> State:
    """The state after an input.

    Raises:
        AssertionError: The table has no such step.
    """
    try:
        return TRANSITIONS[state][happened]
    except KeyError:
        raise AssertionError(f"{happened.name} cannot happen in {state.name}") from None
