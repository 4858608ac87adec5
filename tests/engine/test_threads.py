"""The one lock, who turns, threads that turn, and the last goodbye."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from hisock.engine.threads import (
    Driver,
    StateLock,
    Turn,
    Workers,
    in_this_process,
    say_goodbye_at_exit,
)
from hisock.errors import AlreadyRunning


def in_thread(call: Callable[[], Any]) -> Any:
    """What a call returns or raises in another thread."""
    results: list[Any] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    (result,) = results
    return result


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# --- the lock --------------------------------------------------------------------


def test_the_lock_returns_what_the_action_returns() -> None:
    """An action runs under the lock, with its arguments."""
    lock = StateLock()

    assert lock.run(lambda a, b: a + b, 1, 2) == 3
    assert not lock.is_busy


def test_an_inner_action_waits_for_the_outer() -> None:
    """A signal handler that comes in the middle sees nothing half done."""
    lock = StateLock()
    log: list[str] = []

    def outer() -> str:
        log.append("begin")
        assert lock.run(log.append, "inner") is None
        assert lock.run(log.append, "second inner") is None
        log.append("end")
        return "done"

    assert lock.run(outer) == "done"
    assert log == ["begin", "end", "inner", "second inner"]


def test_what_was_put_off_may_put_off() -> None:
    """Put-off work may itself be interrupted."""
    lock = StateLock()
    log: list[str] = []

    def inner() -> None:
        lock.run(log.append, "innermost")
        log.append("inner")

    lock.run(lambda: lock.run(inner))

    assert log == ["inner", "innermost"]


def test_a_failed_action_gives_the_lock_back() -> None:
    """An exception comes out, and the next action runs."""
    lock = StateLock()
    with pytest.raises(ZeroDivisionError):
        lock.run(lambda: 1 / 0)

    assert not lock.is_busy
    assert lock.run(lambda: 1) == 1
    assert in_thread(lambda: lock.run(lambda: 2)) == 2


def test_what_was_put_off_is_done_after_a_failure_too() -> None:
    """Put-off work does not wait for the next call when the outer action failed."""
    lock = StateLock()
    log: list[str] = []

    def fails() -> None:
        lock.run(log.append, "put off")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lock.run(fails)

    assert log == ["put off"]


def test_threads_take_turns() -> None:
    """Two threads are never inside at once."""
    lock = StateLock()
    inside = threading.Event()
    go_on = threading.Event()
    log: list[str] = []

    def slow() -> None:
        inside.set()
        go_on.wait(10)
        log.append("slow")

    one = threading.Thread(target=lock.run, args=(slow,))
    two = threading.Thread(target=lock.run, args=(log.append, "quick"))
    one.start()
    inside.wait(10)
    two.start()
    assert lock.is_busy
    go_on.set()
    one.join(10)
    two.join(10)

    assert log == ["slow", "quick"]


class _Meeting(deque[Any]):
    """A queue from which two threads take the last entry at the same moment."""

    barrier: threading.Barrier

    def popleft(self) -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.barrier.wait(0.5)
        return super().popleft()


def test_two_threads_may_catch_up_at_once() -> None:
    """What was put off is done once, and neither of two threads fails over it."""
    lock = StateLock()
    log: list[str] = []
    meeting = _Meeting([(log.append, ("put off",))])
    meeting.barrier = threading.Barrier(2)
    lock.postponed = meeting
    results: list[Any] = []

    def catch_up() -> None:
        results.append(in_thread(lock.catch_up))

    threads = [threading.Thread(target=catch_up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert (log, results) == (["put off"], [None, None])


# --- who turns -------------------------------------------------------------------


def test_one_thread_turns() -> None:
    """Whoever runs in it is the one, until that ends; then the next may."""
    turn = Turn("run")
    seen: list[bool] = []

    def inside() -> None:
        seen.append(turn.is_mine)
        seen.append(bool(in_thread(lambda: turn.is_mine)))
        seen.append(bool(in_thread(lambda: turn.try_run(lambda: None))))
        seen.append(bool(turn.claims))

    turn.run(inside)

    assert seen == [True, False, False, True]
    assert (bool(turn.claims), turn.is_mine) == (False, False)
    assert in_thread(lambda: turn.try_run(lambda: None))


def test_a_turn_inside_a_turn() -> None:
    """``run()`` inside a handler is refused, with what to do instead."""
    turn = Turn("run")

    def inside() -> None:
        assert not turn.try_run(lambda: None)
        with pytest.raises(AlreadyRunning) as caught:
            turn.run(lambda: None)
        told = (
            "run() was called inside a handler, while run() is still running it; "
            "return from the handler instead"
        )
        assert told == str(caught.value)

    turn.run(inside)

    assert turn.try_run(lambda: None)


def test_a_turn_in_two_threads() -> None:
    """``update()`` in a second thread is refused by name."""
    turn = Turn("update")
    errors: list[object] = []

    turn.run(lambda: errors.append(in_thread(lambda: turn.run(lambda: None))))

    told = "update() is already running in another thread; call it in one only"
    (error,) = errors
    assert (AlreadyRunning, told) == (type(error), str(error))


def test_an_exception_gives_the_turn_back() -> None:
    """However a turn ends, the next one may begin."""
    turn = Turn("run")

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turn.run(interrupted)

    assert not turn.claims
    assert turn.try_run(lambda: None)


# --- threads that turn -----------------------------------------------------------


class Turned:
    """Something that is turned until it is finished."""

    def __init__(self) -> None:
        self.steps = 0
        self.finishes = 0
        self.is_running = threading.Event()
        self.wakes = threading.Event()
        self.driver = Driver("turned", self.step, self.finish)

    def step(self, timeout: float) -> bool:
        self.steps += 1
        self.is_running.set()
        self.wakes.wait(timeout)
        return True

    def finish(self) -> None:
        self.finishes += 1
        self.wakes.set()


def test_a_driver_turns_until_it_is_stopped() -> None:
    """``stop`` ends the wait of a step and then the thread; both finish."""
    turned = Turned()
    turned.driver.start()
    assert turned.is_running.wait(10)
    assert (turned.driver.is_stopping, turned.driver.is_current) == (False, False)
    began = time.monotonic()

    turned.driver.stop()
    turned.driver.join()

    assert turned.driver.is_stopping
    assert time.monotonic() - began < 0.9
    assert turned.finishes == 2


def test_a_driver_ends_with_what_it_turns() -> None:
    """A step that says no ends the thread."""
    steps = iter([True, True, False])
    finished: list[str] = []
    driver = Driver("three", lambda timeout: next(steps), lambda: finished.append("x"))
    driver.start()
    driver.join()

    assert finished == ["x"]
    assert list(steps) == []


def test_a_driver_starts_once() -> None:
    """A second start is refused by the thread's name."""
    driver = Driver("ThreadedHiSockServer", lambda timeout: False, lambda: None)
    driver.start()
    with pytest.raises(AlreadyRunning, match="ThreadedHiSockServer was started before"):
        driver.start()
    driver.join()


def test_a_driver_that_never_started() -> None:
    """To stop and join what never started does not wait."""
    turned = Turned()
    turned.driver.join()
    turned.driver.stop()
    turned.driver.join()

    assert (turned.steps, turned.finishes) == (0, 1)


def test_a_driver_may_stop_itself() -> None:
    """A handler in the thread may close what runs it, and even join it."""
    log: list[Any] = []

    def step(timeout: float) -> bool:
        log.append(driver.is_current)
        driver.stop()
        driver.join()
        log.append("stopped")
        return True

    driver = Driver("self", step, lambda: log.append("finish"))
    driver.start()
    driver.join()

    assert log == [True, "stopped", "finish"]


def test_a_driver_runs_on_the_callers_thread_too() -> None:
    """``run`` turns where it is called."""
    where: list[int] = []

    def step(timeout: float) -> bool:
        where.append(threading.get_ident())
        return False

    Driver("here", step, lambda: None).run()

    assert [threading.get_ident()] == where


def test_what_a_step_raises_finishes() -> None:
    """An exception comes out, after what is turned was closed."""
    finished: list[str] = []

    def step(timeout: float) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Driver("fails", step, lambda: finished.append("x")).run()

    assert finished == ["x"]


def test_a_crashed_program_ends() -> None:
    """After an uncaught exception in the main thread a driver ends by itself."""
    done = run_program(
        """
        import time
        from hisock.engine.threads import Driver

        def step(timeout):
            time.sleep(0.01)
            return True

        Driver("server", step, lambda: print("finished")).start()
        raise SystemError("crash")
        """
    )

    assert done.stdout == "finished\n"
    assert "crash" in done.stderr


def test_a_program_of_threads_lives_on() -> None:
    """When the main thread ends well, the threads go on, as in 1.1."""
    done = run_program(
        """
        import threading
        from hisock.engine.threads import Driver

        steps = iter(range(3))

        def step(timeout):
            threading.main_thread().join()
            return next(steps, None) is not None

        Driver("server", step, lambda: print(list(steps), "finished")).start()
        """
    )

    assert (done.stdout, done.stderr) == ("[] finished\n", "")


# --- the last goodbye ------------------------------------------------------------


def test_the_last_goodbye() -> None:
    """At the end of the program what still lives says goodbye; what is gone, not."""
    done = run_program(
        """
        import os
        from hisock.engine.threads import say_goodbye_at_exit

        class Engine:
            def __init__(self, name, pid):
                self.name, self.pid = name, pid
            def abandon(self):
                print(self.name)

        here, gone = Engine("here", os.getpid()), Engine("gone", os.getpid())
        parents = Engine("of the process before a fork", -1)
        for engine in (here, gone, parents):
            say_goodbye_at_exit(engine)
        del gone, engine
        """
    )

    assert (done.stdout, done.stderr) == ("here\n", "")


def test_no_asyncio() -> None:
    """The blocking client uses this module, so it does not bring asyncio."""
    done = run_program(
        """
        import sys
        import hisock.engine.threads, hisock.engine.waiting, hisock.engine.dial
        print("asyncio" in sys.modules)
        """
    )

    assert (done.stdout, done.stderr) == ("False\n", "")


# --- workers -------------------------------------------------------------------------


class Jobs:
    """Jobs for workers that run as long as the test says."""

    def __init__(self) -> None:
        self.workers = Workers("the server")
        self.go_on = threading.Event()
        self.came: deque[tuple[Any, BaseException | None]] = deque()
        self.threads: set[str] = set()
        self.running = 0
        self._lock = threading.Lock()

    def done(self, result: Any, error: BaseException | None) -> None:
        """What a job came to."""
        self.came.append((result, error))

    def submit(self, call: Callable[[], Any]) -> None:
        """A job that is done at once."""
        self.workers.submit(call, self.done)

    def submit_long(self) -> None:
        """A job that waits."""

        def work() -> None:
            with self._lock:
                self.running += 1
                self.threads.add(threading.current_thread().name)
            assert self.go_on.wait(10)

        self.submit(work)

    def wait_for(self, count: int) -> None:
        """Wait until so many have come to their end."""
        end = time.monotonic() + 10
        while len(self.came) < count:
            assert time.monotonic() < end
            time.sleep(0.001)


def ours(name: str) -> list[threading.Thread]:
    """The threads that work for somebody."""
    return [each for each in threading.enumerate() if each.name.startswith(name)]


def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_job_is_done_in_another_thread() -> None:
    """And what it came to is told there."""
    jobs = Jobs()
    jobs.submit(threading.current_thread)
    jobs.wait_for(1)
    ((thread, error),) = jobs.came

    assert error is None
    assert thread is not threading.current_thread()
    assert thread.name == "the server worker"
    assert thread.daemon
    jobs.workers.close()
    thread.join(10)
    assert not thread.is_alive()


def test_what_a_job_raises_is_told() -> None:
    """Whatever it is; the thread goes on."""
    jobs = Jobs()

    def fail(error: BaseException) -> Callable[[], None]:
        def work() -> None:
            raise error

        return work

    errors = [ZeroDivisionError(), SystemExit(3), KeyboardInterrupt()]
    for error in errors:
        jobs.submit(fail(error))
        jobs.wait_for(1)
        assert jobs.came.pop() == (None, error)
    assert len(ours("the server worker")) == 1
    jobs.workers.close()
    until(lambda: not ours("the server worker"))


def test_one_thread_does_what_comes_one_after_another() -> None:
    """No more are made than are needed at a time."""
    jobs = Jobs()
    for number in range(20):
        jobs.submit(lambda: None)
        jobs.wait_for(number + 1)
        until(lambda: jobs.workers._idle)

    assert len(ours("the server worker")) == 1
    jobs.workers.close()
    until(lambda: not ours("the server worker"))


def test_jobs_run_beside_each_other_up_to_a_number() -> None:
    """As many threads as there are jobs, 32 at most; the rest waits, and is done."""
    jobs = Jobs()
    for _ in range(Workers.most + 8):
        jobs.submit_long()
    until(lambda: jobs.running == Workers.most)
    assert len(ours("the server worker")) == Workers.most

    jobs.go_on.set()
    jobs.wait_for(Workers.most + 8)
    jobs.workers.close()
    until(lambda: not ours("the server worker"))


def test_closing_lets_jobs_come_to_their_end() -> None:
    """Those that run and those that wait; then the threads end."""
    jobs = Jobs()
    for _ in range(Workers.most + 4):
        jobs.submit_long()
    until(lambda: jobs.running == Workers.most)

    jobs.workers.close()
    jobs.workers.close()
    jobs.go_on.set()

    jobs.wait_for(Workers.most + 4)
    until(lambda: not ours("the server worker"))


def test_jobs_from_many_threads_are_all_done() -> None:
    """None is lost between two that find a thread idle."""
    jobs = Jobs()

    def submit() -> None:
        for number in range(200):
            jobs.submit(lambda number=number: number)  # type: ignore[misc]  # a default

    submitting = [threading.Thread(target=submit) for _ in range(8)]
    for thread in submitting:
        thread.start()
    for thread in submitting:
        thread.join()
    jobs.wait_for(1600)

    assert sorted(result for result, _ in jobs.came) == sorted(8 * [*range(200)])
    jobs.workers.close()
    until(lambda: not ours("the server worker"))


def test_engines_are_looked_through_while_others_are_made() -> None:
    """By a client that looks for a server in its own thread, for one."""

    class Engine:
        pid = os.getpid()

        def abandon(self) -> None:
            """Nothing to be said."""

        disown = abandon

    is_over = threading.Event()

    def make() -> None:
        while not is_over.is_set():
            made = [Engine() for _ in range(20)]
            for engine in made:
                say_goodbye_at_exit(engine)

    making = threading.Thread(target=make)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    kept = [Engine() for _ in range(5000)]
    for engine in kept:
        say_goodbye_at_exit(engine)
    making.start()
    try:
        for _ in range(20):
            assert set(kept) <= set(in_this_process())
    finally:
        is_over.set()
        sys.setswitchinterval(interval)
        making.join()
