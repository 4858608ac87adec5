"""Runs the two ends of a measurement as processes of their own, in turn with another.

A figure is a ratio of medians: the subject and its baseline alternate in one run, so
that a machine which slows down slows both.
"""

from __future__ import annotations

__all__ = ("Pair", "Subject", "compare", "pin", "settle")

import importlib.util
import multiprocessing
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from hisock import HiSockClient

#: One end: gets a pipe to its parent and how much to do.
End: TypeAlias = Callable[[Connection, int], None]

_processes = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two ends: the first tells its port, the second is told it and measures.

    The one that measures sends how many units a second it saw.
    """

    server: End
    client: End
    measured_by_server: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to be measured beside the baseline.

    Attributes:
        name: In the table.
        pair: Its two ends.
        goal: What it should reach; ``None`` for one that is only looked at.
        needs: Packages without which it is told as absent.
    """

    name: str
    pair: Pair
    goal: float | None = None
    needs: tuple[str, ...] = ()

    @property
    def is_absent(self) -> bool:
        """Whether it cannot be measured here."""
        return any(importlib.util.find_spec(name) is None for name in self.needs)


def pin(core: int | None) -> None:
    """Stay on one core from now on, where the system knows how."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})


def settle(client: HiSockClient) -> None:
    """Wait until both sides know which wire is spoken."""
    while client.wire is None:
        client.update(timeout=0.01)


def _end(end: End, pipe: Connection, amount: int, core: int | None) -> None:
    pin(core)
    end(pipe, amount)


def _measure(pair: Pair, amount: int, cores: tuple[int | None, int | None]) -> float:
    """Units a second of one run."""
    server_pipe, server_end = _processes.Pipe()
    client_pipe, client_end = _processes.Pipe()
    server = _processes.Process(
        target=_end, args=(pair.server, server_end, amount, cores[0]), daemon=True
    )
    server.start()
    server_end.close()  # an end that fails is then noticed at once
    port = server_pipe.recv()
    client_pipe.send(port)
    client = _processes.Process(
        target=_end, args=(pair.client, client_end, amount, cores[1]), daemon=True
    )
    client.start()
    client_end.close()
    pipe = server_pipe if pair.measured_by_server else client_pipe
    if not pipe.poll(60):
        server.kill()
        client.kill()
        raise RuntimeError("no figure within 60 s")
    figure: float = pipe.recv()
    client.join(10)
    server.kill()
    server.join()
    return figure


def compare(
    title: str,
    baseline: Pair,
    subjects: Sequence[Subject],
    *,
    amount: int,
    runs: int,
    cores: tuple[int | None, int | None] = (0, 1),
    base: str = "raw sockets",
    unit: str = "/s",
) -> dict[str, float]:
    """Measure everything in turn, print a table, return the ratios to the baseline.

    Args:
        title: Of the table.
        baseline: What everything is divided by.
        subjects: What to measure.
        amount: Units (messages, round trips) in a run.
        runs: How often each is measured.
        cores: Where server and client run.
        base: What the baseline is called.
        unit: Of the figures.
    """
    absent = [subject for subject in subjects if subject.is_absent]
    subjects = [subject for subject in subjects if not subject.is_absent]
    figures: dict[str, list[float]] = {base: []}
    ratios: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for _ in range(runs):
        raw = _measure(baseline, amount, cores)
        figures[base].append(raw)
        for subject in subjects:
            figure = _measure(subject.pair, amount, cores)
            figures.setdefault(subject.name, []).append(figure)
            ratios[subject.name].append(figure / raw)
    print(f"\n{title} ({amount} each, {runs} runs, medians)")
    print(f"  {base:40}{statistics.median(figures[base]):>12,.0f}{unit}")
    result: dict[str, Any] = {}
    for subject in subjects:
        ratio = statistics.median(ratios[subject.name])
        result[subject.name] = ratio
        seen = statistics.median(figures[subject.name])
        goal = "" if subject.goal is None else f"  (goal {subject.goal:g})"
        verdict = "  BELOW" if ratio < (subject.goal or 0) else ""
        print(
            f"  {subject.name:40}{seen:>12,.0f}{unit}  {ratio:6.2f} x {base}"
            f"{goal}{verdict}"
        )
    for subject in absent:
        print(f'  {subject.name:40}      absent: pip install -e ".[bench]"')
    return result
