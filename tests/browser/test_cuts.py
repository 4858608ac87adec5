"""The oracle with a page as the client: through any cut exactly once and in order."""

from __future__ import annotations

from base64 import b64decode, b64encode
from contextlib import ExitStack
from typing import Any

from tests.chaos.cuts import Chaos, schedule
from tests.chaos.faces import SERVERS, Worker
from tests.chaos.proxy import ChaosProxy
from tests.chaos.traffic import COMMAND, END, Traffic

from .conftest import PAGES, Open

SEED = 7
#: Messages that the page is given at a time.
BURST = 100

#: The page's half: it sends what it is given, and hands over all that came.
_SCRIPT = """([command, end]) => {
    const came = [];
    const letter = (byte) => String.fromCharCode(byte);
    const toText = (bytes) => bytes.reduce((text, byte) => text + letter(byte), "");
    const toBytes = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt());
    page.client.on(command, ([number, checksum, payload]) => {
        came.push([number, checksum, btoa(toText(payload))]);
        page.wake();
    });
    page.client.on(end, (count) => {
        came.push(count);
        page.wake();
    });
    page.send = (messages) => {
        for (const [number, checksum, payload] of messages) {
            page.client.send(command, [number, checksum, toBytes(atob(payload))]);
        }
    };
    // Waits a moment for something to come: one that asks all the time stops the page.
    page.takeAll = async () => {
        const timer = setTimeout(() => page.wake(), 50);
        if (!came.length && !page.events.length) {
            await new Promise((resolve) => (page.wake = resolve));
        }
        clearTimeout(timer);
        return [came.splice(0), page.events.splice(0)];
    };
}"""


def page_client(traffic: Traffic, page: Any) -> None:
    """Run the client's side in a page, from the thread of the test, until the end."""
    page.evaluate(_SCRIPT, [COMMAND, END])
    waiting = traffic.messages("up")
    upcoming = next(waiting, None)
    has_ended = False
    while not (traffic.is_done or traffic.failures):
        burst: list[list[Any]] = []
        while upcoming and len(burst) < BURST and traffic.may_send(upcoming[0]):
            number, checksum, payload = upcoming
            burst.append([number, checksum, b64encode(payload).decode()])
            traffic.count_sent()
            upcoming = next(waiting, None)
        if burst:
            page.evaluate("(messages) => page.send(messages)", burst)
        if upcoming is None and not has_ended:
            page.evaluate(
                "([command, count]) => page.client.send(command, count)",
                [END, traffic.count],
            )
            has_ended = True
        _enter(traffic, *page.evaluate("() => page.takeAll()"))


def _enter(traffic: Traffic, came: list[Any], events: list[list[Any]]) -> None:
    """Enter what the page has received, and what happened to it."""
    book = traffic.books["down"]
    for content in came:
        match content:
            case [number, checksum, payload]:
                book.take([number, checksum, b64decode(payload)])
            case count:
                book.end(count)
    for name, *details in events:
        if name == "resume":
            traffic.note_resume()
        elif name != "drop":
            traffic.lose_session(f"{name} {details}")


def test_nothing_is_lost_through_ten_cuts(connected: Open) -> None:
    """2,000 numbered messages each way, 10 cuts of every kind, resumed each time."""
    traffic = Traffic(4000, 10, SEED)
    options = {"resume_window": 30.0, "dead_after": 2.0, "pages": PAGES}
    with ExitStack() as stack:
        at = ("127.0.0.1", 0)
        server = Worker(traffic, SERVERS["threaded"], traffic, at, options)
        stack.enter_context(server)
        stack.callback(traffic.is_closing.set)
        stack.callback(traffic.end)
        proxy = stack.enter_context(ChaosProxy(traffic.address.result(10.0)))
        page = connected(f"http://127.0.0.1:{proxy.address[1]}/", deadAfter=2)
        chaos = Chaos(proxy, traffic, schedule(SEED, 10))
        stack.enter_context(Worker(traffic, chaos.run_chaos))
        stack.callback(traffic.end)
        page_client(traffic, page)
        traffic.end()
        page.evaluate("() => page.client.close()")  # which acknowledges the last

    assert traffic.failures == []
    assert traffic.is_done
    received = [book.received for book in traffic.books.values()]
    assert received == [2000, 2000]
    assert proxy.cuts >= 10
    assert traffic.resumes >= 9
