"""The table of states: what can happen when, and what cannot."""

from __future__ import annotations

import itertools

import pytest

from hisock.session.states import TRANSITIONS, Input, State, next_state

STEPS = [
    (state, happened, after)
    for state, row in TRANSITIONS.items()
    for happened, after in row.items()
]
MISSING = [
    (state, happened)
    for state, happened in itertools.product(State, Input)
    if happened not in TRANSITIONS[state]
]


def test_every_state_has_a_row() -> None:
    """The table is about every state, and knows no other."""
    assert set(State) == set(TRANSITIONS)
    assert set(State) - {State.HELLO} == {after for _, _, after in STEPS}


@pytest.mark.parametrize(("state", "happened", "after"), STEPS, ids=str)
def test_a_step_of_the_table(state: State, happened: Input, after: State) -> None:
    """``next_state`` answers what the table says."""
    assert after is next_state(state, happened)


@pytest.mark.parametrize(("state", "happened"), MISSING, ids=str)
def test_a_step_that_the_table_lacks(state: State, happened: Input) -> None:
    """What cannot happen is a mistake of ours, told by name; never a guess."""
    with pytest.raises(AssertionError) as caught:
        next_state(state, happened)

    told = f"{happened.name} cannot happen in {state.name}"
    assert told == str(caught.value)


def test_nothing_leads_back() -> None:
    """A conversation goes from hello to its end, never back."""
    order = list(State)

    assert all(order.index(before) <= order.index(after) for before, _, after in STEPS)


def test_the_end_is_the_end() -> None:
    """Nothing leads out of ``CLOSED``, and losing the link leads there from all."""
    assert TRANSITIONS[State.CLOSED] == {}
    others = [row for state, row in TRANSITIONS.items() if state is not State.CLOSED]
    assert {State.CLOSED} == {row[Input.LOST] for row in others}


def test_the_table_does_not_change() -> None:
    """Nobody adds a step while the program runs."""
    with pytest.raises(TypeError):
        TRANSITIONS[State.OPEN] = {}  # type: ignore[index]  # that is the test
