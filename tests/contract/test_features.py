"""The feature matrix of the docs comes from this suite: which test ran where.

A row names the tests that hold a promise; their fixtures say on which faces and wires
they ran. ``python tests/contract/test_features.py`` writes the document anew.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DOCUMENT = HERE.parent.parent / "docs" / "features.md"

FACES = ("plain", "threaded", "async")
WIRES = ("classic", "compact", "websocket")
_OURS = ("compact", "websocket")
_TCP = ("classic", "compact")
#: Fixture → the faces and wires that a test with it runs over.
RUNS_OVER: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "net": (FACES, WIRES),
    "way": (FACES, WIRES),
    "turned": (("plain", "threaded"), WIRES),
    "classic": (FACES, ("classic",)),
    "compact": (FACES, _OURS),
    "asking": (FACES, _OURS),
    "compact_turned": (("plain", "threaded"), _OURS),
    "hand": (("plain",), _TCP),
    "threaded": (("threaded",), _TCP),
}

#: Shelf → feature → the tests that hold it, as ``file.test``.
FEATURES: dict[str, dict[str, tuple[str, ...]]] = {
    "Messages": {
        "commands with content, both ways": (
            "sending.order_is_kept_to_the_server",
            "sending.order_is_kept_to_the_client",
        ),
        "raw content, `recv_raw`": (
            "sending.send_client_raw",
            "receiving.recv_raw_waits_for_a_message_without_a_handler",
        ),
        "to a group, to all": ("sending.send_group_and_send_group_raw",),
        "untyped handlers get it as sent, on *classic* as text": (
            "typed.an_untyped_handler_gets_it_as_sent",
        ),
        "hints convert, and refuse what does not fit": (
            "typed.a_typed_handler_gets_what_was_sent",
            "typed.a_message_that_does_not_fit_costs_only_itself",
        ),
        "`batch()`": ("sending.batch_sends_all_of_it",),
        "from any thread, never mixed": (
            "threads.frames_to_the_server_never_interleave",
            "threads.frames_to_a_client_never_interleave",
        ),
    },
    "Who is here": {
        "names, groups, look-ups": (
            "lookups.get_client",
            "lookups.get_group",
            "lookups.get_all_clients",
        ),
        "renaming, regrouping": ("sending.renames_take_effect_in_order",),
        "`join`, `leave`, `client_connect`, `client_disconnect`": (
            "handlers.join_and_leave",
            "handlers.client_events",
        ),
        "a client's `get_client`": ("lookups.a_client_asks_who_somebody_is",),
    },
    "Calls and streams": {
        "calls, both ways": ("calls.what_a_handler_returns_answers",),
        "a time-out is the call's life time": (
            "calls.a_call_gives_up_after_its_timeout",
        ),
        "`CommandError`": ("calls.a_handler_may_refuse",),
        "`call_group`": ("many_calls.call_group_asks_everybody",),
        "`call_any`": ("many_calls.call_any_picks_who_has_the_least_to_do",),
        "calls within calls": (
            "calls.a_call_within_a_call_is_served_while_that_waits",
        ),
        "streams, both ways": ("streams.a_generator_answers_a_stream",),
        "back-pressure": ("streams.a_producer_is_never_more_than_the_window_ahead",),
        "closing a stream ends its producer": (
            "streams.closing_a_stream_cancels_its_producer",
        ),
    },
    "Turning and ending": {
        "handlers on the thread that calls `run` or `update`": (
            "turning.handlers_run_where_run_was_called",
        ),
        "`close()` wakes and ends": (
            "turning.close_from_another_thread_ends_a_turn",
            "endings.closing_twice",
        ),
        "context managers": ("endings.context_managers",),
    },
}

_HEAD = """# What works where

Written by `python tests/contract/test_features.py` from the contract suite: a feature
is marked where a test holds it. *plain* is `HiSockServer` and `HiSockClient`, blocking
and not; *threaded* their threaded variants; *async* is `hisock.aio`, on the stock loop
and on uvloop. *classic* is the wire of hisock 1.1, *compact* our own, *websocket* the
same behind a `ws://` address.
"""


def fixtures_of(test: str) -> set[str]:
    """The parameters of a test, by its name in ``FEATURES``."""
    file, _, name = test.partition(".")
    tree = ast.parse((HERE / f"test_{file}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == f"test_{name}":
            return {argument.arg for argument in node.args.args}
    raise AssertionError(f"there is no test {test}")


def support(tests: tuple[str, ...]) -> set[tuple[str, str]]:
    """Where all of these tests run, as face and wire."""
    where = {(face, wire) for face in FACES for wire in WIRES}
    for test in tests:
        cells: set[tuple[str, str]] = set()
        for fixture in fixtures_of(test) & set(RUNS_OVER):
            faces, wires = RUNS_OVER[fixture]
            cells |= {(face, wire) for face in faces for wire in wires}
        where &= cells
    return where


def document() -> str:
    """The whole of docs/features.md."""
    columns = [(face, wire) for face in FACES for wire in WIRES]
    lines = [_HEAD]
    for shelf, features in FEATURES.items():
        titles = " | ".join(f"{face}, {wire}" for face, wire in columns)
        lines += [f"## {shelf}\n", f"| feature | {titles} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for feature, tests in features.items():
            where = support(tests)
            marks = " | ".join("yes" if column in where else "no" for column in columns)
            lines.append(f"| {feature} | {marks} |")
        lines.append("")
    return "\n".join(lines)


def test_the_document_says_what_the_suite_holds() -> None:
    """``docs/features.md`` is what this file makes of the suite today."""
    assert DOCUMENT.read_text(encoding="utf-8") == document()


@pytest.mark.parametrize(
    ("shelf", "feature"),
    [(shelf, feature) for shelf, rows in FEATURES.items() for feature in rows],
)
def test_every_feature_is_held_somewhere(shelf: str, feature: str) -> None:
    """No row is empty: its tests run together on some face and wire."""
    assert support(FEATURES[shelf][feature])


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
    sys.exit(0)
