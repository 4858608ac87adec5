"""``hisock.js`` in a real page: calls, streams, types, and a network that is off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from hisock import ClientInfo, CommandError, ThreadedHiSockServer, start_threaded_server

from .conftest import PAGES, Open

PATIENCE = 10.0
WHEN = datetime(2026, 2, 3, 4, 5, 6, 789000, UTC)


@pytest.fixture
def server() -> Iterator[ThreadedHiSockServer]:
    """A server whose handlers say what arrived, as Python calls it."""
    with start_threaded_server(("127.0.0.1", 0), pages=PAGES) as server:
        server.on("echo")(lambda client, content: content)
        server.on("kind")(lambda client, content: type(content).__name__)
        yield server


def url_of(server: Any) -> str:
    """Where its page is."""
    return f"http://127.0.0.1:{server.addr[1]}/"


# --- calls ---------------------------------------------------------------------------


def test_the_page_calls_the_server(
    server: ThreadedHiSockServer, connected: Open
) -> None:
    """What a Python handler returns, or refuses, is what the page's call gets."""

    @server.on("add")
    def add(client: ClientInfo, numbers: list[int]) -> int:
        return sum(numbers)

    @server.on("refuse")
    def refuse(client: ClientInfo) -> None:
        raise CommandError("too_late", "the shop is closed", {"opens": 9})

    page = connected(url_of(server))

    assert page.evaluate("() => page.client.call('add', [1, 2, 39])") == 42
    refused = page.evaluate(
        "() => page.client.call('refuse').catch(({ code, message, data }) => "
        "({ code, message, data }))"
    )
    assert refused == {
        "code": "too_late",
        "message": "the shop is closed",
        "data": {"opens": 9},
    }
    wrong = "() => page.client.call('add', ['one']).catch((error) => error.code)"
    assert page.evaluate(wrong) == "conversion"


def test_the_server_calls_the_page(
    server: ThreadedHiSockServer, connected: Open
) -> None:
    """A handler in the page answers Python, after a promise, or with a refusal."""
    page = connected(url_of(server), name="page")
    page.evaluate(
        """() => {
            page.client.on("where", async ({ of }) => {
                await new Promise((resolve) => setTimeout(resolve));
                return `${of} is at ${location.pathname}`;
            });
            page.client.on("no", () => {
                throw new hisock.CommandError("busy", "not now", [1]);
            });
        }"""
    )

    assert server.call_client("page", "where", {"of": "ann"}) == "ann is at /"
    with pytest.raises(Exception, match="not now") as caught:
        server.call_client("page", "no")
    assert (caught.value.code, caught.value.data) == ("busy", [1])  # type: ignore[attr-defined]  # RemoteError's


# --- streams -------------------------------------------------------------------------


def test_the_page_leaves_a_stream(
    server: ThreadedHiSockServer, connected: Open
) -> None:
    """Leaving the loop closes the generator on the server; its finally runs."""
    closed = threading.Event()

    @server.on("count")
    def count(client: ClientInfo) -> Iterator[int]:
        number = 0
        try:
            while True:
                yield (number := number + 1)
        finally:
            closed.set()

    page = connected(url_of(server))
    read = page.evaluate(
        """async () => {
            const read = [];
            for await (const number of page.client.stream("count")) {
                read.push(number);
                if (number === 300) break;
            }
            return read;
        }"""
    )

    assert read == list(range(1, 301))
    assert closed.wait(PATIENCE)
    assert page.evaluate("() => page.client.call('echo', 'goes on')") == "goes on"


def test_the_server_leaves_a_stream(
    server: ThreadedHiSockServer, connected: Open
) -> None:
    """Closing the iterator in Python ends the generator in the page."""
    page = connected(url_of(server), name="page")
    page.evaluate(
        """() => page.client.on("letters", async function* () {
            try {
                for (let n = 0; ; n += 1) yield String.fromCharCode(97 + (n % 26));
            } finally {
                page.note("closed");
            }
        })"""
    )

    letters = server.stream_client("page", "letters")
    read = [next(letters) for _ in range(200)]
    letters.close()

    assert "".join(read[:30]) == "abcdefghijklmnopqrstuvwxyzabcd"
    page.wait_for_function("page.has('closed')")


# --- types ---------------------------------------------------------------------------

#: JavaScript's values, and what Python calls them.
SENT = {
    "new Uint8Array([0, 255])": "bytes",
    "2n ** 63n": "int",
    "2 ** 40": "int",
    "1.5": "float",
    "new Date(1e12)": "datetime",
    "new Map([[1, 'one']])": "dict",
    "({ a: 1 })": "dict",
    "[1, [2]]": "list",
    "'ü\\u{1f600}'": "str",
    "null": "NoneType",
    "true": "bool",
}
#: Python's values, and what is true of them in JavaScript.
RECEIVED = {
    "content instanceof Uint8Array && content[1] === 255": b"\0\xff",
    "content === 2n ** 60n + 1n": 2**60 + 1,
    "content === -(2n ** 63n)": -(2**63),
    "content === 2 ** 53 - 1": 2**53 - 1,
    "content.toISOString() === '2026-02-03T04:05:06.789Z'": WHEN,
    "content instanceof Map && content.get(2) === 'two'": {1: "one", 2: "two"},
    "JSON.stringify(content) === '{\"a\":[1,null]}'": {"a": [1, None]},
    "content.length === 2 && content[1] === 'two'": (1, "two"),
}


def test_what_a_page_sends(server: ThreadedHiSockServer, connected: Open) -> None:
    """JavaScript's values are Python's, and come back as they went."""
    page = connected(url_of(server))
    kinds = "(value) => page.client.call('kind', value)"
    same = """async (value) => {
        const show = (value) => [typeof value, Object.prototype.toString.call(value),
            ...hisock.pack(value)].join();
        return show(await page.client.call("echo", value)) === show(value);
    }"""

    found = {script: page.evaluate(f"() => ({kinds})({script})") for script in SENT}
    changed = [each for each in SENT if not page.evaluate(f"() => ({same})({each})")]

    assert found == SENT
    assert changed == []


def test_what_a_page_gets(server: ThreadedHiSockServer, connected: Open) -> None:
    """Python's values are what the table says they are in JavaScript."""
    page = connected(url_of(server), name="page")
    page.evaluate("() => page.keep('value')")

    for content in RECEIVED.values():
        server.send_client("page", "value", content)

    page.wait_for_function("count => page.came.length === count", arg=len(RECEIVED))
    for place, script in enumerate(RECEIVED):
        holds = f"(place) => {{ const content = page.came[place]; return {script}; }}"
        assert page.evaluate(holds, place), script


# --- the network is off --------------------------------------------------------------


def test_a_page_without_a_network(
    server: ThreadedHiSockServer, connected: Open
) -> None:
    """Off, the page is told; back on, it has all that was sent meanwhile, both ways."""
    heard: list[int] = []
    all_heard = threading.Event()

    @server.on("number")
    def number(client: ClientInfo, content: int) -> None:
        heard.append(content)
        if content == 29:
            all_heard.set()

    page = connected(url_of(server), name="page", deadAfter=0.4)
    page.evaluate("() => page.keep('value')")
    cdp = page.context.new_cdp_session(page)
    page.evaluate(
        "() => { for (let n = 0; n < 10; n += 1) page.client.send('number', n); }"
    )

    _set_network(cdp, is_offline=True)
    page.wait_for_function("page.has('drop')")
    assert page.evaluate("() => page.client.isConnected") is False
    page.evaluate(
        "() => { for (let n = 10; n < 30; n += 1) page.client.send('number', n); }"
    )
    for value in range(20):
        server.send_client("page", "value", value)
    assert not all_heard.is_set()
    _set_network(cdp, is_offline=False)

    page.wait_for_function("page.has('resume') && page.came.length === 20")
    assert page.evaluate("() => page.came") == list(range(20))
    assert all_heard.wait(PATIENCE)
    assert heard == list(range(30))
    assert not page.evaluate("() => page.has('lost')")


def _set_network(cdp: Any, *, is_offline: bool) -> None:
    """What the checkbox "offline" of the developer tools does."""
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    cdp.send("Network.enable")
    cdp.send("Network.emulateNetworkConditions", {"offline": is_offline, **conditions})
