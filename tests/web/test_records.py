"""What the dashboard remembers: bounded, and told the time."""

from __future__ import annotations

from hisock.web.records import TAIL, Failures, Series, Tail


def test_rates_are_of_one_second() -> None:
    """What came in half a second makes twice as much a second."""
    series = Series()
    series.add(10, 5, 0.5)
    series.add(3, 0, 1.0)

    assert series.columns() == {"in": [20.0, 3.0], "out": [10.0, 0.0]}


def test_seconds_that_nobody_counted_have_their_share() -> None:
    """A server that was held up for 3 s has no hole in its plot."""
    series = Series()
    series.add(30, 3, 3.0)

    assert series.columns() == {"in": [10.0] * 3, "out": [1.0] * 3}


def test_rates_are_kept_for_five_minutes() -> None:
    """However long it goes on, or was held up, 300 are kept: the newest."""
    series = Series()
    series.add(1, 1, 86_400.0)
    series.add(7, 8, 1.0)

    columns = series.columns()
    assert [len(columns[way]) for way in ("in", "out")] == [300, 300]
    assert (columns["in"][-1], columns["out"][-1]) == (7.0, 8.0)


def test_the_same_failure_is_counted() -> None:
    """It comes first again, with its last text, and how often it happened."""
    failures = Failures()
    failures.note(1.0, "handler", "first", "a.py:1 f", "a.py:2")
    failures.note(2.0, "forbidden", "other", "", "")
    failures.note(3.0, "handler", "second", "a.py:1 f", "a.py:2")

    assert failures.rows(5.0) == [
        {
            "age": 2.0,
            "code": "handler",
            "text": "second",
            "where": "a.py:1 f",
            "line": "a.py:2",
            "count": 2,
        },
        {
            "age": 3.0,
            "code": "forbidden",
            "text": "other",
            "where": "",
            "line": "",
            "count": 1,
        },
    ]


def test_failures_are_bounded() -> None:
    """The oldest of a hundred goes, and no text is long."""
    failures = Failures()
    for number in range(150):
        failures.note(0.0, "handler", "x" * 10_000, f"a.py:{number} f", "")

    rows = failures.rows(0.0)
    assert [row["where"] for row in rows] == [
        f"a.py:{number} f" for number in range(149, 49, -1)
    ]
    assert max(len(row["text"]) for row in rows) == 300


def test_what_a_client_repeats_pushes_nothing_out() -> None:
    """A million unknown commands are one row."""
    failures = Failures()
    failures.note(0.0, "handler", "mine", "a.py:1 f", "")
    for number in range(1000):
        failures.note(1.0, "unknown_command", f"no handler for {number}", "", "")

    assert [row["count"] for row in failures.rows(1.0)] == [1000, 1]


def commands(tail: Tail, after: int, *, payload: bool = False) -> list[object]:
    """What is seen of a tail at second 1."""
    rows = tail.after(after, 1.0, payload=payload)["commands"]
    return [(row["number"], row["command"], row["payload"]) for row in rows]


def test_a_tail_goes_on_behind_a_number() -> None:
    """The oldest first, each once."""
    tail = Tail(0.0)
    tail.note(0.5, [("a", 1, None), ("b", 2, None)])

    assert tail.after(0, 1.0, payload=False) == {
        "number": 2,
        "commands": [
            {"number": 1, "age": 0.5, "command": "a", "size": 1, "payload": None},
            {"number": 2, "age": 0.5, "command": "b", "size": 2, "payload": None},
        ],
    }
    assert commands(tail, 1) == [(2, "b", None)]
    assert commands(tail, 2) == commands(tail, 10**15) == []


def test_a_tail_is_bounded() -> None:
    """200 commands, and of each no more than can be read."""
    tail = Tail(0.0)
    tail.note(0.5, [("c" * 1000, 1, "p" * 1000)] * (TAIL + 50), skipped=1000)

    rows = tail.after(0, 1.0, payload=True)["commands"]
    assert [row["number"] for row in rows] == list(range(1051, 1251))
    assert {(len(row["command"]), len(row["payload"])) for row in rows} == {(100, 200)}


def test_contents_are_for_who_asks() -> None:
    """They are kept for ten seconds after somebody asked, and shown to no other."""
    tail = Tail(0.0)
    assert not tail.wants_payload(0.0)
    tail.note(0.1, [("a", 1, None)])
    assert commands(tail, 0, payload=True) == [(1, "a", None)]

    assert tail.wants_payload(10.9)
    assert not tail.wants_payload(11.1)
    tail.note(2.0, [("b", 1, "secret")])
    assert commands(tail, 1) == [(2, "b", None)]
    assert commands(tail, 1, payload=True) == [(2, "b", "secret")]


def test_a_tail_ends_when_nobody_asks() -> None:
    """Ten seconds after somebody did."""
    tail = Tail(0.0)
    assert not tail.is_over(10.0)
    tail.after(0, 5.0, payload=False)

    assert not tail.is_over(15.0)
    assert tail.is_over(15.1)
