"""Sends numbered messages both ways through cuts, and says what arrived."""

from __future__ import annotations

__all__ = ("Outcome", "Plan", "prove")

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from .cuts import Chaos, schedule
from .faces import CLIENTS, SERVERS, Worker
from .proxy import ChaosProxy
from .traffic import Traffic

#: Seconds between two looks at how far it is.
_LOOK: Final = 0.25
_ANYWHERE: Final = ("127.0.0.1", 0)


@dataclass(frozen=True)
class Plan:
    """What is to be proved.

    Attributes:
        messages: How many, both ways together.
        cuts: How many cuts, spread evenly over them.
        seed: Of messages and cuts.
        server: ``"plain"``, ``"threaded"`` or ``"aio"``.
        client: ``"blocking"``, ``"threaded"`` or ``"aio"``.
        silences: How many of the cuts are such that only silence tells.
        kinds: Kinds that the others are drawn from; nothing for all.
        dead_after: Seconds of silence, for both sides.
        stall: Seconds without any message after which it has failed.
        latency: Seconds that everything takes, each way.
        chunk: Bytes that pass at a time; ``None`` for as many as come.
        options: Keyword options for both sides; ``None`` for those that resume.
        report: Called with a line every few seconds.
    """

    messages: int
    cuts: int = 0
    seed: int = 1
    server: str = "plain"
    client: str = "blocking"
    silences: int = 0
    kinds: tuple[str, ...] = ()
    dead_after: float = 2.0
    stall: float = 30.0
    latency: float = 0.0
    chunk: int | None = None
    options: dict[str, Any] | None = None
    report: Callable[[str], None] | None = None

    def all_options(self) -> dict[str, Any]:
        """Keyword options for both sides."""
        if self.options is not None:
            return self.options
        if not self.cuts:
            return {}
        return {"resume_window": 30.0, "dead_after": self.dead_after}


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        sent: Messages that were accepted.
        received: Messages that came.
        lost: Messages that never came.
        duplicated: Messages that came again.
        out_of_order: Messages that came after a later one.
        corrupt: Messages that are not what was sent.
        session_losses: How often the client was told that its session is over.
        cuts: Connections that were cut or swallowed.
        reconnects: Connections after the first.
        resumes: How often the client was told that it is back.
        seconds: How long it took.
        failures: What went wrong, the first twenty.
    """

    sent: int
    received: int
    lost: int
    duplicated: int
    out_of_order: int
    corrupt: int
    session_losses: int
    cuts: int
    reconnects: int
    resumes: int
    seconds: float
    failures: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether everything came exactly once and in order, and nothing else."""
        wrong = (self.lost, self.duplicated, self.out_of_order, self.corrupt)
        return not (any(wrong) or self.session_losses or self.failures)


def prove(plan: Plan) -> Outcome:
    """Run it to its end, or to the first failure."""
    traffic = Traffic(plan.messages, plan.cuts, plan.seed)
    options = plan.all_options()
    began = time.monotonic()
    server, client = SERVERS[plan.server], CLIENTS[plan.client]
    with ExitStack() as stack:  # it ends from the last to the first
        stack.enter_context(Worker(traffic, server, traffic, _ANYWHERE, options))
        stack.callback(traffic.is_closing.set)
        stack.callback(traffic.end)
        proxy = stack.enter_context(ChaosProxy(traffic.address.result(10.0)))
        proxy.latency(plan.latency)
        proxy.dribble(plan.chunk)
        cuts = schedule(plan.seed, plan.cuts, plan.silences, plan.kinds)
        chaos = Chaos(proxy, traffic, cuts)
        stack.enter_context(Worker(traffic, client, traffic, proxy.address, options))
        stack.enter_context(Worker(traffic, chaos.run_chaos))
        stack.callback(traffic.end)
        _watch(plan, traffic, proxy)
    books = traffic.books.values()
    return Outcome(
        sent=traffic.sent,
        received=traffic.received,
        lost=sum(book.lost for book in books),
        duplicated=sum(book.duplicated for book in books),
        out_of_order=sum(book.out_of_order for book in books),
        corrupt=sum(book.corrupt for book in books),
        session_losses=traffic.session_losses,
        cuts=proxy.cuts + chaos.silences,
        reconnects=proxy.connections - 1,
        resumes=traffic.resumes,
        seconds=round(time.monotonic() - began, 3),
        failures=tuple(traffic.failures),
    )


def _watch(plan: Plan, traffic: Traffic, proxy: ChaosProxy) -> None:
    """Wait for the end, a failure, or that nothing comes any more."""
    moved = reported = time.monotonic()
    seen = -1
    while not traffic.wait(_LOOK):
        now = time.monotonic()
        if traffic.received != seen:
            seen, moved = traffic.received, now
        elif now - moved > plan.stall:
            due = {way: book.next for way, book in traffic.books.items()}
            traffic.fail(f"nothing came for {plan.stall:g} s; next are {due}")
        if plan.report is not None and now - reported > 3.0:
            reported = now
            plan.report(f"{seen} of {plan.messages} messages, {proxy.cuts} cuts")
