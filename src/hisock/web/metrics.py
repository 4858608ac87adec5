"""``/metrics``: what a server counts, as Prometheus reads it.

Only numbers, under names that stand here: no payload, no token, no name and no address
of a client. ``docs/metrics.md`` lists them.
"""

from __future__ import annotations

__all__ = ("METRICS", "Metric", "Metrics")

from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hisock.wire.frames import Value
from hisock.wire.http import Head, Response


class Metric(Value, frozen=True):
    """One thing that is measured.

    Attributes:
        name: As Prometheus knows it; a counter's has ``_total`` behind it there.
        text: What it is.
        keys: Of the server's ``stats()``, by what they are told apart.
        label: What tells them apart; empty for a single one.
        is_counter: Whether it only ever grows.
    """

    name: str
    text: str
    keys: Mapping[str, str]
    label: str = ""
    is_counter: bool = True


def _one(name: str, key: str, text: str, *, is_counter: bool = True) -> Metric:
    return Metric(f"hisock_{name}", text, {"": key}, is_counter=is_counter)


def _now(name: str, key: str, text: str) -> Metric:
    return _one(name, key, text, is_counter=False)


_REASONS: Final = (
    *("busy", "closed", "http", "kicked", "name_taken", "other", "replaced"),
    *("unauthorized", "version"),
)
METRICS: Final = (
    Metric(
        "hisock_clients",
        "Clients, by the wire they speak.",
        {wire: f"clients_{wire}" for wire in ("classic", "compact", "websocket")},
        label="wire",
        is_counter=False,
    ),
    _now("connections", "connections", "Open connections, strangers' too."),
    _now("groups", "groups", "Groups that somebody is in."),
    _now("dropped_sessions", "dropped", "Clients that are cut and may come back."),
    _now("buffered_bytes", "buffered_bytes", "Bytes that wait for clients."),
    _now("open_calls", "open_calls", "Calls and streams that clients are to answer."),
    _now("open_requests", "open_requests", "Those that this server is to answer."),
    _now("uptime_seconds", "uptime", "Seconds since the server was made."),
    _one("joins", "joined", "Clients that were let in."),
    _one("leaves", "left", "Clients that left."),
    _one("resumed_sessions", "resumed", "Sessions that went on after a cut."),
    _one("lost_sessions", "lost_sessions", "Sessions to which nobody came back."),
    _one("slow_consumers", "slow_consumers", "Clients cut for being too slow."),
    _one("messages_received", "messages_received", "Messages of clients."),
    _one("messages_sent", "messages_sent", "Messages to clients with a session."),
    _one("received_bytes", "bytes_received", "Bytes of clients."),
    _one("sent_bytes", "bytes_sent", "Bytes to clients with a session."),
    _one("late_replies", "late_replies", "Answers that nobody waited for any more."),
    _one("expired_messages", "expired_messages", "Messages past their life time."),
    _one("undelivered_messages", "undelivered_messages", "Lost with their client."),
    _one("handler_errors", "handler_errors", "Exceptions of handlers."),
    _one("unknown_commands", "unknown_commands", "Messages that nobody handles."),
    _one("forbidden_messages", "forbidden_messages", "Not allowed, or not so often."),
    Metric(
        "hisock_refused",
        "Who was not let in, by reason.",
        {reason: f"refused_{reason}" for reason in _REASONS},
        label="reason",
    ),
)


class Metrics(Collector):
    """What one server counts.

    Args:
        stats: Tells it.
    """

    def __init__(self, stats: Callable[[], Mapping[str, int]]) -> None:
        self._stats = stats
        # Not the one of the process: a program may have several servers, and its own.
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Nothing: to register it is no reason to count."""
        return iter(())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Each metric with its values."""
        stats = self._stats()
        for metric in METRICS:
            kind = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
            labels = [metric.label] if metric.label else []
            family = kind(metric.name, metric.text, labels=labels)
            for label, key in metric.keys.items():
                family.add_metric([label] if metric.label else [], stats[key])
            yield family

    def answer(self, head: Head) -> Response:
        """The page for Prometheus."""
        page = generate_latest(self._registry)
        headers = {"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
        return Response(HTTPStatus.OK, headers, (page,), len(page))
