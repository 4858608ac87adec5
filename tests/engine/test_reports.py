"""What goes wrong in handlers, and who is told."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from hisock import ClientInfo
from hisock.engine.inbox import Mail
from hisock.engine.reports import Reports
from hisock.errors import ConversionError, HandlerError, UnknownCommand
from hisock.handlers.table import HandlerEntry, HandlerTable

ANN = ClientInfo(("127.0.0.1", 5000), "ann", None)
LOG = logging.getLogger("hisock.tests")


def move(client: Any, message: int) -> None:
    """A handler."""


@pytest.fixture
def table() -> HandlerTable:
    """A server's handlers."""
    made = HandlerTable(on_server=True)
    made.add("move", move)
    return made


@pytest.fixture
def entry(table: HandlerTable) -> HandlerEntry:
    """That of ``move``."""
    found = table.get("move")
    assert found is not None
    return found


@pytest.fixture
def reports(table: HandlerTable) -> Reports:
    """Of a server that keeps what is raised."""
    return Reports("the server", table, LOG, raises=False)


def listen(table: HandlerTable) -> list[Any]:
    """What ``on_error`` is told from now on."""
    told: list[Any] = []
    table.on_error = told.append
    return told


def test_a_handlers_error_is_logged_with_its_place(
    reports: Reports, entry: HandlerEntry, caplog: pytest.LogCaptureFixture
) -> None:
    """Each time, with the traceback and whose message it was."""
    for _ in range(2):
        reports.failed(ANN, entry, ZeroDivisionError("on purpose"))

    assert len(caplog.records) == 2
    record = caplog.records[0]
    assert record.levelno == logging.ERROR
    assert "test_reports.py" in record.getMessage()
    assert "'name': 'ann'" in record.getMessage()
    assert "on purpose" in caplog.text


def test_a_message_that_does_not_fit_is_logged_now_and_then(
    reports: Reports, entry: HandlerEntry, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger could cause it without end: the first, the tenth, the hundredth."""
    for _ in range(100):
        reports.failed(ANN, entry, ConversionError("expected int, got 'x'"))

    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    told = caplog.records[0].getMessage()
    assert "'move' for test_reports.py" in told
    assert "expected int, got 'x'" in told


def test_on_error_is_told_in_place_of_the_log(
    reports: Reports,
    table: HandlerTable,
    entry: HandlerEntry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of whom, of what and where, with what was raised as the cause."""
    told = listen(table)
    raised = ZeroDivisionError("on purpose")

    reports.failed(ANN, entry, raised)

    (report,) = told
    assert type(report) is HandlerError
    assert (report.client, report.command, report.code) == (ANN, "move", "handler")
    assert report.where.startswith("test_reports.py:")
    assert report.__cause__ is raised
    assert "on purpose" in str(report)
    assert caplog.records == []


def test_an_on_error_that_fails_is_logged(
    reports: Reports,
    table: HandlerTable,
    entry: HandlerEntry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With what it was told, so that neither error is lost; nothing is raised."""

    def fail(report: Exception) -> None:
        raise KeyError("itself")

    table.on_error = fail
    reports.failed(ANN, entry, ZeroDivisionError("on purpose"))

    assert "on_error itself failed" in caplog.text
    assert "on purpose" in caplog.text
    assert "KeyError: 'itself'" in caplog.text


def test_raise_lets_it_out(table: HandlerTable, entry: HandlerEntry) -> None:
    """As it was raised, even where there is an ``on_error``; a conversion's error
    names the handler."""
    reports = Reports("the server", table, LOG, raises=True)
    told = listen(table)
    raised = ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError) as caught:
        reports.failed(ANN, entry, raised)
    assert caught.value is raised
    with pytest.raises(ConversionError, match=r"'move' for test_reports\.py"):
        reports.failed(None, entry, ConversionError("expected int"))
    with pytest.raises(ZeroDivisionError):
        reports.failed_alone(move, raised)
    assert told == []


def test_what_is_called_at_a_pace_is_reported_by_its_name(
    reports: Reports, table: HandlerTable, caplog: pytest.LogCaptureFixture
) -> None:
    """To the log, or to ``on_error`` without client and command."""
    raised = ZeroDivisionError("on purpose")
    reports.failed_alone(move, raised)
    assert "move failed" in caplog.text
    told = listen(table)

    reports.failed_alone(move, raised)

    (report,) = told
    assert (report.client, report.command, report.where) == (None, "", "move")
    assert report.__cause__ is raised


def test_an_unknown_command_is_told_with_the_near_one(
    reports: Reports, table: HandlerTable, caplog: pytest.LogCaptureFixture
) -> None:
    """Now and then in the log, each time to ``on_error``; never with its content."""
    for _ in range(10):
        reports.unclaimed(ANN, Mail(None, b"mvoe secret"))
    assert len(caplog.records) == 2
    assert "the server: no handler for 'mvoe'. Did you mean 'move'?" in caplog.text
    told = listen(table)

    for _ in range(2):
        reports.unclaimed(ANN, Mail("mvoe", b"\xa6secret", is_packed=True))

    assert [type(report) for report in told] == [UnknownCommand] * 2
    assert (told[0].client, told[0].command) == (ANN, "mvoe")
    assert "Did you mean 'move'?" in str(told[0])
    assert "secret" not in caplog.text + str(told[0])


def test_who_sees_every_message_misses_none(
    reports: Reports, table: HandlerTable, caplog: pytest.LogCaptureFixture
) -> None:
    """With a ``message`` handler nothing is unknown."""
    table.add("message", move)
    told = listen(table)

    reports.unclaimed(ANN, Mail(None, b"mvoe"))

    assert told == caplog.records == []


def test_a_handler_that_holds_up_the_loop_is_named(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    """With the cure, and now and then."""
    for _ in range(9):
        reports.blocked("app.py:12 move", 0.5)

    (record,) = caplog.records
    assert "handler app.py:12 move blocked the loop for 0.50 s" in record.getMessage()
    assert "threaded=True" in record.getMessage()
