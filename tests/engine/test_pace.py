"""What a turn does besides messages: calls at a pace."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from hisock.engine import pace as pacing
from hisock.engine.pace import Pace
from hisock.errors import InvalidOption


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


class Scene:
    """A pace, its clock, and what happened."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.woken = 0
        self.failures: list[tuple[Any, str]] = []
        self.spawned: list[tuple[Any, Any]] = []
        self.pace = Pace(self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def failed(self, function: Callable[[], Any], error: Exception) -> None:
        """As an engine's report."""
        self.failures.append((function, repr(error)))

    def spawn(self, coroutine: Any, context: contextvars.Context, done: Any) -> None:
        """As an engine that runs coroutines; the test says when they are done."""
        assert isinstance(context, contextvars.Context)
        self.spawned.append((coroutine, done))

    def work_at(self, now: float, *, runs_coroutines: bool = False) -> bool:
        """A turn at that time."""
        self.clock.now = now
        return self.pace.work(self.failed, self.spawn if runs_coroutines else None)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Nothing to do yet, at 100 s."""
    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    return Scene(clock)


def test_nothing_to_do_costs_no_patience(scene: Scene) -> None:
    """Without repeated calls and generators an engine waits as long as it likes."""
    assert not scene.pace.is_set
    assert [scene.pace.patience(each) for each in (None, 0.0, 2.5)] == [None, 0.0, 2.5]
    assert not scene.work_at(200.0)


def test_it_is_called_at_its_pace_without_drift(scene: Scene) -> None:
    """A call that comes late does not put off those after it."""
    calls: list[float] = []
    scene.pace.every(1.0, lambda: calls.append(scene.clock.now))

    for now in (100.0, 100.9, 101.0, 101.3, 102.4, 102.9, 103.0):
        assert not scene.work_at(now)  # and it ends no wait

    assert calls == [101.0, 102.4, 103.0]
    assert scene.pace.patience(None) == pytest.approx(1.0)


def test_what_was_missed_is_skipped(scene: Scene) -> None:
    """After a long pause there is one call, and the beat is kept."""
    calls: list[float] = []
    scene.pace.every(0.25, lambda: calls.append(scene.clock.now))

    scene.work_at(110.1)
    scene.work_at(110.2)
    scene.work_at(110.25)

    assert calls == [110.1, 110.25]


def test_the_next_call_bounds_the_wait(scene: Scene) -> None:
    """An engine waits until the nearest call, or as long as it was told, if that is
    less; overdue is no wait, and 0 stays 0."""
    scene.pace.every(3.0, lambda: None)
    scene.pace.every(2.0, lambda: None)

    assert scene.pace.patience(None) == pytest.approx(2.0)
    assert scene.pace.patience(10.0) == pytest.approx(2.0)
    assert scene.pace.patience(0.5) == 0.5
    assert scene.pace.patience(0) == 0
    scene.clock.now = 105.0
    assert scene.pace.patience(None) == 0.0


def test_a_wait_hears_of_a_new_pace(scene: Scene) -> None:
    """Registering wakes the engine, which may be waiting for longer."""
    scene.pace.every(1.0, lambda: None)

    assert scene.woken == 1
    assert scene.pace.is_set


def test_one_that_raises_is_reported_and_called_again(scene: Scene) -> None:
    """It costs neither the others nor its own next call."""
    calls: list[str] = []

    def bad() -> None:
        calls.append("bad")
        raise ValueError("on purpose")

    scene.pace.every(1.0, bad)
    scene.pace.every(1.0, lambda: calls.append("good"))
    scene.work_at(101.0)
    scene.work_at(102.0)

    assert calls == ["bad", "good"] * 2
    assert scene.failures == [(bad, "ValueError('on purpose')")] * 2


def test_one_may_register_another(scene: Scene) -> None:
    """Which is called from its own time on."""
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        scene.pace.every(0.5, lambda: calls.append("second"))

    scene.pace.every(1.0, first)
    scene.work_at(101.0)
    scene.work_at(101.5)

    assert calls == ["first", "second"]


def test_a_coroutine_does_not_overlap_itself(scene: Scene) -> None:
    """As long as it runs it is not called, nor is anybody's patience lost to it."""
    calls: list[float] = []

    async def slow() -> None:
        calls.append(scene.clock.now)

    scene.pace.every(1.0, slow)
    scene.work_at(101.0, runs_coroutines=True)
    scene.work_at(102.0, runs_coroutines=True)
    ((coroutine, done),) = scene.spawned
    assert scene.pace.patience(None) != 0
    coroutine.close()
    done(None, None)
    scene.work_at(103.0, runs_coroutines=True)

    assert len(scene.spawned) == 2
    scene.spawned[1][0].close()


def test_a_coroutine_that_raises_is_reported(scene: Scene) -> None:
    """As a function is; one that was cancelled is nobody's failure."""

    async def slow() -> None: ...

    scene.pace.every(1.0, slow)
    for now, error in ((101.0, ValueError("late")), (102.0, KeyboardInterrupt())):
        scene.work_at(now, runs_coroutines=True)
        coroutine, done = scene.spawned.pop()
        coroutine.close()
        done(None, error)

    assert scene.failures == [(slow, "ValueError('late')")]


def test_a_coroutine_where_none_can_run(scene: Scene) -> None:
    """Is reported with the reason, and closed."""
    made: list[Any] = []

    async def slow() -> None: ...

    def make() -> Any:
        made.append(slow())
        return made[-1]

    scene.pace.every(1.0, make)
    scene.work_at(101.0)

    ((function, told),) = scene.failures
    assert function is make
    assert "only servers and hisock.aio run coroutines" in told
    assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED


@pytest.mark.parametrize("pace", [0, -1, 0.0, float("nan"), float("inf"), "1", True])
def test_what_is_no_pace(scene: Scene, pace: Any) -> None:
    """Is refused, and nothing is registered."""
    with pytest.raises(InvalidOption):
        scene.pace.every(pace, lambda: None)

    assert not scene.pace.is_set
