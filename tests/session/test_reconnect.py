"""When a client tries to come back: later each time, never all at once."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hisock.session.reconnect import CAP, FIRST, Backoff

BOUNDS = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0, 20.0]


def always(number: float) -> Callable[[], float]:
    """A chance that is none."""
    return lambda: number


def test_the_bounds() -> None:
    """The first try falls within a quarter of a second, the later ones within 20 s."""
    assert (FIRST, CAP) == (0.25, 20.0)


@pytest.mark.parametrize("drawn", [0.0, 0.5, 0.75])
def test_each_delay_is_a_share_of_a_bound_that_doubles(drawn: float) -> None:
    """Full jitter: from nothing up to the bound, which doubles until it is 20 s."""
    backoff = Backoff(always(drawn))

    assert [backoff.next() for _ in BOUNDS] == [drawn * bound for bound in BOUNDS]


@given(st.integers(0, 2**32))
def test_every_delay_is_drawn_anew(seed: int) -> None:
    """Clients that were cut together come back at different times, within bounds."""
    random, same = Random(seed), Random(seed)
    backoff = Backoff(random.random)
    delays = [backoff.next() for _ in BOUNDS]

    assert delays == [same.random() * bound for bound in BOUNDS]
    assert all(0 <= delay < bound for delay, bound in zip(delays, BOUNDS, strict=True))


def test_no_number_of_tries_is_too_many() -> None:
    """After days the bound is what it was after two minutes."""
    backoff = Backoff(always(0.5))
    for _ in range(10_000):
        delay = backoff.next()

    assert delay == CAP / 2


def test_after_a_success_it_begins_anew() -> None:
    """The next cut is tried as quickly as the first one."""
    backoff = Backoff(always(0.5))
    for _ in range(5):
        backoff.next()
    backoff.reset()

    assert [backoff.next() for _ in range(3)] == [0.125, 0.25, 0.5]


@pytest.mark.parametrize(
    ("drawn", "least", "delay"),
    [(0.0, 4.0, 4.0), (0.25, 4.0, 5.0), (0.75, 4.0, 7.0), (0.5, 0.0, 0.0)],
)
def test_not_sooner_than_the_server_asks(
    drawn: float, least: float, delay: float
) -> None:
    """What the server asks for is the least, and up to twice as much is waited."""
    assert Backoff(always(drawn)).after(least) == delay


def test_what_the_server_asks_for_changes_no_bound() -> None:
    """The tries after it go on where they were."""
    backoff = Backoff(always(0.5))
    delays = [backoff.next(), backoff.after(30.0), backoff.next()]

    assert delays == [0.125, 45.0, 0.25]


def test_a_waiting_client_costs_little() -> None:
    """There is nothing but a bound and where chance comes from."""
    assert not hasattr(Backoff(always(0.5)), "__dict__")
