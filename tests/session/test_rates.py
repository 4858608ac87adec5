"""How often is too often: what a bucket lets through, on any clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hisock.session.rates import Bucket

START = 1000.0


def test_a_second_s_worth_passes_at_once() -> None:
    """And one more does not, which costs nothing."""
    bucket = Bucket(20, START)

    assert all(bucket.take(1, START) for _ in range(20))
    assert not bucket.take(1, START)
    assert not bucket.take(1, START + 0.03)
    assert bucket.take(1, START + 0.0625)
    assert not bucket.take(1, START + 0.0625)


@pytest.mark.parametrize("rate", [1.0, 0.5, 1 / 3600])
def test_one_passes_however_low_the_rate_is(rate: float) -> None:
    """And the next once that much time has passed."""
    bucket = Bucket(rate, START)

    assert bucket.take(1, START)
    assert not bucket.take(1, START + 0.99 / rate)
    assert bucket.take(1, START + 1.01 / rate)


def test_idle_time_is_saved_for_a_second_alone() -> None:
    """Who was quiet for a day has no more at once than before."""
    bucket = Bucket(20, START)
    assert bucket.take(20, START)

    assert not bucket.take(21, START + 86400)
    assert bucket.take(20, START + 86400)


def test_what_is_spent_beyond_it_is_made_good_later() -> None:
    """``spend`` always takes, and says for how long nothing more should be."""
    bucket = Bucket(20, START)

    assert bucket.spend(20, START) == 0
    assert bucket.spend(1, START) == pytest.approx(1 / 20)
    assert bucket.spend(9, START) == pytest.approx(10 / 20)
    assert not bucket.take(1, START + 0.5)
    assert bucket.spend(1, START + 0.5) == pytest.approx(1 / 20)
    assert bucket.spend(1, START + 0.625) == 0


@given(
    rate=st.floats(0.1, 1000),
    pauses=st.lists(st.floats(0, 5), max_size=100),
)
def test_never_more_than_the_rate_on_average(rate: float, pauses: list[float]) -> None:
    """Beside what passes at once, whenever somebody tries."""
    bucket, now, passed = Bucket(rate, START), START, 0
    for pause in pauses:
        now += pause
        passed += bucket.take(1, now)

    assert passed <= max(rate, 1) + rate * (now - START) + 1e-6
