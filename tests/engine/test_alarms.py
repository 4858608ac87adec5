"""One timer of the loop wakes all who have waited long enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from hisock.engine.alarms import Alarms

#: Seconds after which nothing in these tests is due.
LONG = 60.0


class Counting(asyncio.SelectorEventLoop):
    """A loop that counts the timers that were set."""

    timers = 0

    def call_at(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]  # any will do
        """Set one."""
        self.timers += 1
        return super().call_at(*arguments, **options)

    @property
    def open_timers(self) -> int:
        """How many will ring."""
        timers = self._scheduled  # type: ignore[attr-defined]  # of BaseEventLoop
        return sum(not timer.cancelled() for timer in timers)


def run(scene: Callable[[Counting, Alarms], Coroutine[Any, Any, None]]) -> None:
    """Run a test in such a loop."""
    with asyncio.Runner(loop_factory=Counting) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Counting)
        runner.run(scene(loop, Alarms(loop)))


def _note(woken: list[int], number: int, _: object) -> None:
    woken.append(number)


def test_who_waits_too_long_is_woken_in_order() -> None:
    """Each when its time is over, and no earlier."""

    async def scene(loop: Counting, alarms: Alarms) -> None:
        began = time.monotonic()
        woken: list[int] = []
        waiting = []
        for number in range(5):
            news = loop.create_future()
            news.add_done_callback(partial(_note, woken, number))
            alarms.set(news, began + 0.01 * (number + 1))
            waiting.append(news)
        for number, news in enumerate(waiting):
            await news
            assert time.monotonic() >= began + 0.01 * (number + 1)
        assert woken == [0, 1, 2, 3, 4]
        assert loop.open_timers == 0

    run(scene)


def test_all_that_are_over_are_woken_at_once() -> None:
    """However many."""

    async def scene(loop: Counting, alarms: Alarms) -> None:
        end = time.monotonic() + 0.01
        waiting = [loop.create_future() for _ in range(1000)]
        for news in waiting:
            alarms.set(news, end)
        await asyncio.gather(*waiting)
        assert loop.timers == 1

    run(scene)


def test_what_is_answered_in_time_costs_no_timer() -> None:
    """One is set for the first, and looks again when it rings."""

    async def scene(loop: Counting, alarms: Alarms) -> None:
        for _ in range(1000):
            news = loop.create_future()
            alarms.clear(news, alarms.set(news, time.monotonic() + LONG))
        assert loop.timers == 1
        alarms.close()
        assert loop.open_timers == 0

    run(scene)


def test_a_timer_whose_reason_is_gone_looks_for_the_next() -> None:
    """Who waits longer than the one that it was set for is woken all the same."""

    async def scene(loop: Counting, alarms: Alarms) -> None:
        first, second = loop.create_future(), loop.create_future()
        timer = alarms.set(first, time.monotonic() + 0.01)
        end = time.monotonic() + 0.03
        alarms.set(second, end)
        alarms.clear(first, timer)
        await second
        assert time.monotonic() >= end
        assert not first.done()

    run(scene)


def test_who_waits_less_long_than_others_is_woken_before_them() -> None:
    """By a timer of its own, or by the one of all if nobody else waits any more."""

    async def scene(loop: Counting, alarms: Alarms) -> None:
        long, short = loop.create_future(), loop.create_future()
        alarms.set(long, time.monotonic() + LONG)
        alarms.set(short, time.monotonic() + 0.01)
        await short
        assert not long.done()

        given_up = loop.create_future()
        alarms.clear(given_up, alarms.set(given_up, time.monotonic() + 0.01))
        alarms.clear(long, None)
        alone = loop.create_future()
        alarms.set(alone, time.monotonic() + 0.02)
        await alone
        assert not given_up.done()
        assert loop.open_timers == 0

    run(scene)


def test_one_that_was_woken_otherwise_is_left_alone() -> None:
    """Its answer came in the same round of the loop."""

    async def scene(loop: Counting, alarms: Alarms) -> None:
        answered, other = loop.create_future(), loop.create_future()
        end = time.monotonic() + 0.01
        alarms.set(answered, end)
        alarms.set(other, end)
        answered.set_result(None)
        await other

    run(scene)


def test_closing_keeps_the_timer_of_who_waits() -> None:
    """A call that is still open hears of its time-out."""

    async def scene(loop: Counting, alarms: Alarms) -> None:
        news = loop.create_future()
        alarms.set(news, time.monotonic() + 0.01)
        alarms.close()
        await news
        alarms.close()

    run(scene)
