"""The dashboard in a real browser: what it shows, does, and does not let in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hisock import (
    HiSockClient,
    ThreadedHiSockServer,
    connect,
    start_threaded_server,
)

from .conftest import Visit

HOST = "127.0.0.1"
#: What a hostile client may call itself, and how that is to be read.
HOSTILE = {
    "<img src=x onerror=alert(1)>": "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>": "</script><script>alert(2)</script>",
    "\"'><b onclick=alert(3)>x": "\"'><b onclick=alert(3)>x",
    "javascript:alert(4)": "javascript:alert(4)",
    "{{alert(5)}}${alert(6)}": "{{alert(5)}}${alert(6)}",
    "\u202etxt.exe\u2066": "\\u202etxt.exe\\u2066",
    "a\u200bb\u2028c": "a\\u200bb\\u2028c",
    "\U000e0041": "\\u{e0041}",
    " ": "(blank)",
    "n" * 255: "n" * 255,
    "名前 🙂": "名前 🙂",
}


@pytest.fixture
def server() -> Iterator[ThreadedHiSockServer]:
    """A server with a dashboard."""
    with start_threaded_server((HOST, 0), dashboard=True) as server:
        server.on("double")(lambda client, number: number * 2)

        @server.on("*")
        def anything(client: Any, command: str, content: Any) -> None:
            """Take it."""

        @server.on("fail")
        def fail(client: Any, text: str) -> None:
            raise ValueError(text)

        yield server


@pytest.fixture
def join(server: ThreadedHiSockServer) -> Iterator[Callable[..., HiSockClient]]:
    """Makes clients that are surely there."""
    with ExitStack() as stack:

        def join(name: str | None, group: str | None = None) -> HiSockClient:
            client = connect(server.addr, name=name, group=group, reconnect=False)
            stack.enter_context(client)
            assert client.call("double", 1) == 2
            return client

        yield join


def origin_of(server: ThreadedHiSockServer) -> str:
    """Where it is."""
    return f"http://{HOST}:{server.addr[1]}"


def open_dashboard(visit: Visit, server: ThreadedHiSockServer) -> Any:
    """The page, with data on it."""
    visit.page.goto(server.dashboard_url)
    visit.page.wait_for_selector("main:not([hidden])")
    return visit.page


def names_on(page: Any) -> list[str]:
    """Of the clients in the table."""
    found: list[str] = page.locator("#client-rows button.name").all_inner_texts()
    return found


def wait_until(page: Any, script: str, argument: object = None) -> None:
    """Wait until a script says so."""
    page.wait_for_function(script, arg=argument)


# --- names full of markup ------------------------------------------------------------


def test_t5_names_full_of_markup_are_text(
    visit: Visit, server: ThreadedHiSockServer, join: Callable[..., HiSockClient]
) -> None:
    """Names, groups, commands, contents and errors: nothing of them runs or loads,
    nothing turns what stands around it, and all of it is to be seen."""
    clients = {name: join(name, group=name) for name in HOSTILE}
    page = open_dashboard(visit, server)

    assert names_on(page) == list(HOSTILE.values())
    assert set(page.locator("#group-rows td:first-child").all_inner_texts()) >= {
        shown for name, shown in HOSTILE.items() if name.strip()
    }
    for name in [*HOSTILE][:3] + [*HOSTILE][5:9]:
        client = clients[name]
        page.get_by_role("button", name=HOSTILE[name]).click()
        page.get_by_label("with contents").check()
        page.get_by_role("button", name="Follow").click()
        _wait_for_tail(page)
        client.send(name, name)
        client.send("fail", name)
        client.call("double", 1)
        page.evaluate("poll()")
        page.locator("#tail-rows tr").nth(2).wait_for()
        texts = page.locator("#tail-rows tr").last.locator("bdi").all_text_contents()
        visible = name if name == " " else HOSTILE[name]
        assert texts == [visible[:100], visible[:200]]
        wait_until(
            page,
            "text => $('error-rows').textContent.includes(text)",
            f"ValueError: {visible}"[:300],
        )

    assert page.evaluate("document.scripts.length") == 1
    assert page.evaluate("document.querySelectorAll('[onclick], b, img').length") == 0
    assert not re.search("[\u202e\u2066\u200b\u2028\U000e0041]", page.content())
    assert visit.complaints == []
    assert visit.went_nowhere_but(origin_of(server))


def _wait_for_tail(page: Any) -> None:
    """Wait until the server has heard that its commands are wanted."""
    with page.expect_response(lambda response: "after=" in response.url):
        page.evaluate("poll()")


def test_a_long_name_does_not_widen_the_page(
    visit: Visit, server: ThreadedHiSockServer, join: Callable[..., HiSockClient]
) -> None:
    """It is cut short in the table, and whole where it was chosen."""
    join("n" * 255, group="g" * 255)
    page = open_dashboard(visit, server)
    page.get_by_role("button", name="n" * 255).click()

    assert page.get_by_role("heading", name="n" * 255).is_visible()
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(wide)


# --- the token -----------------------------------------------------------------------


def test_the_token_leaves_the_address_bar(
    visit: Visit, server: ThreadedHiSockServer
) -> None:
    """It is in no request's address, and a reload still works."""
    page = open_dashboard(visit, server)
    token = str(server.dashboard_url).partition("#token=")[2]

    assert page.url == f"{origin_of(server)}/dashboard"
    page.reload()
    page.wait_for_selector("main:not([hidden])")
    assert not any(token in url for url in visit.requested)
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""


def test_without_a_token_it_asks_for_one(
    visit: Visit, server: ThreadedHiSockServer
) -> None:
    """A wrong one is told, and the whole link is understood."""
    page = visit.page
    page.goto(f"{origin_of(server)}/dashboard")
    field = page.get_by_label("The link, or the token alone")
    assert page.evaluate("document.activeElement.id") == "token"
    assert not any("/data" in url for url in visit.requested)

    field.fill("名 token")
    field.press("Enter")
    page.get_by_role("alert").get_by_text("That is no token").wait_for()
    assert not any("/data" in url for url in visit.requested)
    field.fill("wrong")
    field.press("Enter")
    page.get_by_role("alert").get_by_text("not the token").wait_for()
    field.fill(server.dashboard_url)
    field.press("Enter")
    page.get_by_role("heading", name="Clients", exact=True).wait_for()
    assert page.get_by_role("status").first.inner_text() == "Live"


# --- what is shown -------------------------------------------------------------------


def test_rows_stay_the_same_nodes(
    visit: Visit, server: ThreadedHiSockServer, join: Callable[..., HiSockClient]
) -> None:
    """Two hundred clients: nothing flickers, and the focus stays where it was, though
    rows come, go and change their order."""
    clients = [join(f"client {number:03}") for number in range(200)]
    page = open_dashboard(visit, server)
    assert page.locator("#client-rows tr").count() == 200
    page.get_by_role("button", name="client 100").focus()
    page.evaluate("document.activeElement.mark = 'kept'")

    page.evaluate("state.sort = { key: 'name', down: true }; poll()")
    clients[0].close()
    wait_until(page, "() => document.querySelectorAll('#client-rows tr').length == 199")

    assert names_on(page)[0] == "client 199"
    assert page.evaluate("document.activeElement.mark") == "kept"


def test_clients_are_sorted_and_filtered(
    visit: Visit, server: ThreadedHiSockServer, join: Callable[..., HiSockClient]
) -> None:
    """By the head of a column, up and down and back, and by what is typed."""
    for name in ("bob", "ann", "cho"):
        join(name)
    page = open_dashboard(visit, server)
    head = page.get_by_role("columnheader", name="Name")

    for order, names in (
        ("ascending", ["ann", "bob", "cho"]),
        ("descending", ["cho", "bob", "ann"]),
        ("none", ["bob", "ann", "cho"]),
    ):
        head.get_by_role("button").click()
        wait_until(
            page,
            "names => [...document.querySelectorAll('#client-rows .name')]"
            ".map(each => each.textContent).join() == names",
            ",".join(names),
        )
        assert head.get_attribute("aria-sort") == order
    page.get_by_label("Filter by name, group or address").fill("CH")
    wait_until(page, "() => document.querySelectorAll('#client-rows tr').length == 1")
    assert names_on(page) == ["cho"]
    assert "1 of 3" in page.inner_text("#clients-note")
    page.get_by_label("Filter by name, group or address").fill("zoe")
    page.get_by_text("Nobody matches.").wait_for()


def test_rates_are_drawn_and_told(
    visit: Visit, server: ThreadedHiSockServer, join: Callable[..., HiSockClient]
) -> None:
    """The plot has a line, a name that says what it shows, and a table."""
    ann = join("ann")
    page = open_dashboard(visit, server)
    plot = page.get_by_role("img", name=re.compile("Messages a second"))
    for _ in range(20):
        ann.call("double", 2)

    wait_until(page, r"() => /in: .* [1-9]\d* at most/.test($('plot').ariaLabel)")
    wait_until(page, "() => /^M.*L300 /.test(shapes.in.line.getAttribute('d'))")
    assert plot.is_visible()
    page.get_by_text("The same as a table").click()
    table = page.get_by_role("table", name=re.compile("on average"))
    assert table.get_by_role("row").nth(1).inner_text().startswith("the last 30 s")
    plot.hover(position={"x": 5, "y": 5})
    assert "ago: nothing known" in page.inner_text("#plot-readout")


def test_a_server_that_stops_is_missed(
    visit: Visit, server: ThreadedHiSockServer, join: Callable[..., HiSockClient]
) -> None:
    """The page says so, goes on trying, and is back by itself."""
    join("ann")
    page = open_dashboard(visit, server)
    page.route("**/data*", lambda route: route.abort())
    page.evaluate("poll()")
    page.get_by_role("alert").get_by_text("does not answer").wait_for()
    assert page.get_by_role("status").first.inner_text() == "Not reached"

    page.unroute("**/data*")
    page.get_by_role("status").get_by_text("Live").wait_for()
    assert names_on(page) == ["ann"]
    server.close()
    page.evaluate("poll()")
    page.get_by_role("alert").get_by_text("does not answer").wait_for()
    assert visit.went_nowhere_but(origin_of(server))


# --- what is done --------------------------------------------------------------------


def press_until(page: Any, key: str, script: str) -> None:
    """Press a key until the element with the focus is the one."""
    for _ in range(60):
        if page.evaluate(f"(e => {script})(document.activeElement)"):
            return
        page.keyboard.press(key)
    pytest.fail(f"{key} never leads to {script}")


def test_a_client_is_disconnected_by_keyboard_alone(
    visit: Visit, server: ThreadedHiSockServer, join: Callable[..., HiSockClient]
) -> None:
    """From the top of the page: skip, choose, open the question, say yes; the focus
    is never lost."""
    join("ann")
    ben = join("ben")
    ended: list[bool] = []
    ben.on("force_disconnect")(lambda: ended.append(True))
    page = open_dashboard(visit, server)

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the clients"
    page.keyboard.press("Enter")
    press_until(page, "Tab", "e.textContent == 'ben'")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "ben"
    press_until(page, "Tab", "e.id == 'disconnect'")
    page.keyboard.press("Enter")
    page.get_by_role("dialog", name="Disconnect ben?").wait_for()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "disconnect"
    page.keyboard.press("Enter")
    press_until(page, "Tab", "e.id == 'confirm-yes'")
    page.keyboard.press("Enter")

    page.get_by_role("status").get_by_text("Disconnected ben").wait_for()
    page.get_by_text("This client has left.").wait_for()
    while not ended:
        ben.update()
    assert names_on(page) == ["ann"]
    page.get_by_role("button", name="Close").focus()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "clients"
    assert visit.complaints == []


def test_a_test_message_is_sent(
    visit: Visit, server: ThreadedHiSockServer, join: Callable[..., HiSockClient]
) -> None:
    """With what was typed, whatever that is; what cannot be sent is said."""
    ann = join("ann")
    page = open_dashboard(visit, server)
    page.get_by_role("button", name="ann").click()
    page.get_by_label("Command", exact=True).fill("news")
    page.get_by_label("Content, as text").fill("a & b=<c>\n名")
    page.get_by_role("button", name="Send").click()

    page.get_by_role("status").get_by_text("Sent news to ann").wait_for()
    assert ann.recv("news", timeout=5) == "a & b=<c>\n名"
    page.get_by_label("Command", exact=True).fill("$no$")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("status").get_by_text("Not done: '$no$' has the form").wait_for()


def test_the_tail_shows_contents_only_if_asked(
    visit: Visit, server: ThreadedHiSockServer, join: Callable[..., HiSockClient]
) -> None:
    """Commands at once; what came with them once that is wanted."""
    ann = join("ann")
    page = open_dashboard(visit, server)
    page.get_by_role("button", name="ann").click()
    page.get_by_role("button", name="Follow").click()
    _wait_for_tail(page)
    ann.send("move", "a secret")
    ann.call("double", 1)
    page.evaluate("poll()")
    page.get_by_role("cell", name="move").wait_for()
    assert "secret" not in page.content()

    page.get_by_label("with contents").check()
    _wait_for_tail(page)
    ann.send("say", "no secret")
    ann.call("double", 1)
    page.evaluate("poll()")
    page.get_by_text("no secret").wait_for()
    said = page.locator("#tail-rows tr").nth(1)
    assert said.inner_text().split()[1:] == ["say", "no", "secret", "16"]
    page.get_by_role("button", name="Following").click()
    assert page.locator("#tail-rows tr").count() == 0


# --- who cannot see much -------------------------------------------------------------

#: What has to have a name for who hears the page.
_NAMED = {
    *("button", "textbox", "searchbox", "checkbox", "link", "table", "dialog"),
    *("region", "image", "img", "form", "heading", "group"),
}


def named(page: Any) -> dict[str, list[str]]:
    """The roles in the accessibility tree that need names, and these."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    found: dict[str, list[str]] = {}
    for node in nodes:
        role = node.get("role", {}).get("value", "")
        if not node.get("ignored") and role in _NAMED:
            name = node.get("name", {}).get("value", "")
            found.setdefault(role, []).append(name.strip())
    return found


def test_everything_has_a_name(
    visit: Visit, server: ThreadedHiSockServer, join: Callable[..., HiSockClient]
) -> None:
    """Every control, table, region and dialog says what it is; so does the page."""
    for name in ("ann", " ", None):
        join(name, group="red").send("fail", "x")
    page = open_dashboard(visit, server)
    page.get_by_role("button", name="ann").click()
    page.get_by_role("button", name="Follow").click()
    page.wait_for_selector("#error-rows tr")
    tree = named(page)
    page.get_by_role("button", name="Disconnect…").click()
    asked = named(page)

    assert {"button", "textbox", "searchbox", "checkbox", "table", "region"} <= set(
        tree
    )
    assert "dialog" in asked
    for role, names in [*tree.items(), *asked.items()]:
        assert all(names), (role, names)
    assert len(set(tree["region"])) == len(tree["region"])
    assert page.title() == "hisock dashboard"
    assert page.evaluate("document.documentElement.lang") == "en"
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(e => e.tagName)")
    assert levels[0] == "H1"
    assert levels.count("H1") == 1
    assert page.evaluate(
        "[...document.querySelectorAll('th')].every(e => e.scope == 'col')"
    )


_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d");
  const parse = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || node.disabled) continue;
    if (!node.checkVisibility()) continue;
    texts += 1;
    const [one, other] = [parse(getComputedStyle(node).color), behind(node)].map(light);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${node.outerHTML.slice(0, 80)}`);
  }
  const ground = getComputedStyle(document.body).backgroundColor;
  return { texts, poor, page: light(parse(ground)) };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(
    visit: Visit,
    server: ThreadedHiSockServer,
    join: Callable[..., HiSockClient],
    scheme: str,
) -> None:
    """WCAG's contrast of 4.5 for all text, on light ground or dark as is wished."""
    join("ann", group="red").send("fail", "x")
    visit.page.emulate_media(color_scheme=scheme)
    page = open_dashboard(visit, server)
    page.get_by_role("button", name="ann").click()
    page.get_by_role("button", name="Follow").click()
    page.wait_for_selector("#error-rows tr")
    found = page.evaluate(_CONTRAST)

    assert found["poor"] == []
    assert found["texts"] > 50
    assert (found["page"] < 0.1) is (scheme == "dark")


# --- a hostile page ------------------------------------------------------------------

_EVIL = """<!doctype html><title>evil</title><script src="evil.js"></script>"""
_EVIL_SCRIPT = """
const target = new URLSearchParams(location.search).get("target");
window.found = [];
async function attack() {
  const tries = {
    read: () => fetch(`${target}/dashboard/data`).then((r) => r.text()),
    token: () => fetch(`${target}/dashboard/data`,
      { headers: { "X-Hisock-Dashboard": "1", Authorization: "Bearer x" } }),
    blind: () => fetch(`${target}/dashboard/disconnect?client=1`,
      { mode: "no-cors", credentials: "include" }).then((r) => r.text()),
    image: () => new Promise((done, fail) => {
      const image = new Image();
      image.onload = () => done("loaded");
      image.onerror = fail;
      image.src = `${target}/dashboard/disconnect?client=1`;
    }),
    script: () => new Promise((done, fail) => {
      const script = document.createElement("script");
      script.onload = () => done("loaded");
      script.onerror = fail;
      script.src = `${target}/dashboard/dashboard.js`;
      document.head.append(script);
    }),
    frame: () => new Promise((done, fail) => {
      const frame = document.createElement("iframe");
      frame.onload = () => {
        try { done(frame.contentDocument.title); } catch (error) { fail(error); }
      };
      frame.src = `${target}/dashboard`;
      document.documentElement.append(frame);
    }),
    opener: () => {
      const other = window.open(`${target}/dashboard`);
      return new Promise((done, fail) => setTimeout(() => {
        try { done(other.document.title); } catch (error) { fail(error); }
      }, 300));
    },
  };
  for (const [name, attempt] of Object.entries(tries)) {
    try {
      const got = await attempt();
      if (got !== "") window.found.push([name, String(got)]);
    } catch { /* as it should be */ }
  }
  window.isDone = true;
}
attack();
"""


def test_t5_another_page_gets_nothing_and_does_nothing(
    visit: Visit,
    server: ThreadedHiSockServer,
    join: Callable[..., HiSockClient],
    tmp_path: Path,
) -> None:
    """Whatever it tries while the dashboard is open in the same browser."""
    ann = join("ann")
    open_dashboard(visit, server)
    (tmp_path / "index.html").write_text(_EVIL)
    (tmp_path / "evil.js").write_text(_EVIL_SCRIPT)
    with start_threaded_server((HOST, 0), pages=tmp_path) as evil:
        page = visit.page.context.new_page()
        page.goto(f"{origin_of(evil)}/?target={origin_of(server)}")
        page.wait_for_function("window.isDone")

        assert page.evaluate("window.found") == []
    assert ann.call("double", 4) == 8
    assert len(server) == 1
