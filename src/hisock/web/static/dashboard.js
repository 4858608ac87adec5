// The dashboard's page. Everything that comes from the server is written as text,
// never as markup: there is no innerHTML here, and no attribute gets an URL.
"use strict";

const POLL = 1000; // milliseconds, as all times here
const POLL_HIDDEN = 5000;
const AGAIN = 2000;
const PATIENCE = 8000;
const NOTICE = 6000;
const SECONDS = 300;
const TAIL = 200;
const STORED = "hisock-dashboard-token";
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);

const state = {
  token: "",
  sort: { key: "id", down: false },
  chosen: null, // the number of the client whose details are shown
  opener: null, // the row's button that opened them
  follows: false,
  known: 0, // number of the last command in the tail
  series: { in: [], out: [] },
  timer: 0,
  round: 0, // of asking; an answer of an earlier one is too late
};

// --- text ------------------------------------------------------------------------

// What cannot be seen, or turns what stands around it: control and format characters,
// among them those that change the direction; separators; blanks that look like none.
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu;

/** Text of somebody else, with all that is in it to be seen. */
function seen(text) {
  return String(text).replace(HIDDEN, (letter) => {
    const code = letter.codePointAt(0).toString(16);
    return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, "0")}`;
  });
}

function nameOf(client) {
  if (client.name === null) return "(no name)";
  return client.name.trim() ? seen(client.name) : "(blank)";
}

function number(value) {
  const digits = value < 10 ? 1 : 0;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

function bytes(value) {
  let unit = 0;
  let left = value;
  while (left >= 1024 && unit < 3) {
    left /= 1024;
    unit += 1;
  }
  return `${number(left)} ${["B", "KiB", "MiB", "GiB"][unit]}`;
}

function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  const hours = Math.floor(seconds / 3600);
  if (hours < 48) return `${hours} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(hours / 24)} days`;
}

function milliseconds(value) {
  if (value === null) return "–";
  return `${value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : 0 })} ms`;
}

// --- the page's nodes ------------------------------------------------------------

/** Write text, if it is another one than stands there. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function make(kind, className = "", text = "") {
  const node = document.createElement(kind);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/** Text of somebody else, that does not turn what stands around it. */
function foreign(className = "") {
  return make("bdi", className);
}

/**
 * Bring the rows of a table in line with data: rows stay the same nodes as long as
 * their keys stay, so nothing flickers and what has the focus keeps it.
 */
class Rows {
  constructor(body, make, fill) {
    this.body = body;
    this.make = make;
    this.fill = fill;
    this.rows = new Map();
  }

  show(items, keyOf) {
    const keys = new Set(items.map(keyOf));
    for (const [key, row] of this.rows) {
      if (!keys.has(key)) {
        row.node.remove();
        this.rows.delete(key);
      }
    }
    const focused = document.activeElement;
    let at = this.body.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      let row = this.rows.get(key);
      if (row === undefined) {
        row = this.make(item);
        this.rows.set(key, row);
      }
      this.fill(row, item);
      if (row.node === at) at = at.nextElementSibling;
      else this.body.insertBefore(row.node, at);
    }
    // Moving a row takes the focus from what is in it.
    if (focused !== document.activeElement && this.body.contains(focused)) {
      focused.focus({ preventScroll: true });
    }
  }
}

/** A row of cells: each ``kinds`` is a class of a cell, and the cell's text is foreign. */
function plainRow(kinds) {
  const node = make("tr");
  const cells = kinds.map((kind) => {
    const cell = node.appendChild(make("td", kind));
    return cell.appendChild(foreign());
  });
  return { node, cells };
}

// --- asking ----------------------------------------------------------------------

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Ask the server for something below /dashboard. */
async function ask(what, fields) {
  const response = await fetch(`dashboard/${what}?${new URLSearchParams(fields)}`, {
    headers: { Authorization: `Bearer ${state.token}`, "X-Hisock-Dashboard": "1" },
    cache: "no-store",
    redirect: "error",
    signal: AbortSignal.timeout(PATIENCE),
  });
  const answer = await response.json();
  if (!response.ok) throw new Refused(response.status, String(answer.error));
  return answer;
}

async function poll() {
  clearTimeout(state.timer);
  state.round += 1;
  const round = state.round;
  const fields = { search: $("search").value };
  if (state.chosen !== null) {
    fields.client = state.chosen;
    if (state.follows) fields.after = state.known;
    if (state.follows && $("payload").checked) fields.payload = "1";
  }
  let pause = document.hidden ? POLL_HIDDEN : POLL;
  try {
    const data = await ask("data", fields);
    if (round !== state.round) return;
    show(data);
    live();
  } catch (error) {
    if (round !== state.round) return;
    if (error instanceof Refused && error.status === 401) {
      signIn("This is not the token of the server that is running now.");
      return;
    }
    lost(error);
    pause = AGAIN;
  }
  state.timer = setTimeout(poll, pause);
}

function live() {
  $("banner").hidden = true;
  $("main").classList.remove("stale");
  $("status").dataset.state = "live";
  write($("status"), "Live");
}

function lost(error) {
  const refused = error instanceof Refused;
  $("main").classList.add("stale");
  $("status").dataset.state = "lost";
  write($("status"), refused ? "Refused" : "Not reached");
  const text = refused
    ? `The server refuses: ${seen(error.message)}`
    : "The server does not answer. Perhaps it has stopped; this page goes on trying.";
  write($("banner"), text);
  $("banner").hidden = false;
}

function notice(text) {
  const node = $("notice");
  write(node, text);
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => write(node, ""), NOTICE);
}

/** Have the server do something, and tell what became of it. */
async function act(what, fields, done) {
  try {
    await ask(what, fields);
    notice(done);
  } catch (error) {
    const why = error instanceof Refused ? error.message : "the server does not answer";
    notice(`Not done: ${seen(why)}`);
  }
  poll();
}

// --- the token -------------------------------------------------------------------

function tokenIn(text) {
  const found = /(?:^|#|&)token=([\w-]+)/.exec(text);
  return found === null ? text.trim() : found[1];
}

/** Take the token out of the address bar, where others could read it. */
function takeToken() {
  if (!location.hash.includes("token=")) return false;
  state.token = tokenIn(location.hash);
  sessionStorage.setItem(STORED, state.token);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

function signIn(why) {
  clearTimeout(state.timer);
  sessionStorage.removeItem(STORED);
  state.token = "";
  $("main").hidden = true;
  $("sign-in").hidden = false;
  $("status").dataset.state = "wait";
  write($("status"), "No token");
  $("banner").hidden = !why;
  write($("banner"), why);
  $("token").focus();
}

// --- what is shown ---------------------------------------------------------------

function show(data) {
  $("sign-in").hidden = true;
  $("main").hidden = false;
  write($("server"), seen(data.server.name));
  write($("uptime"), `· up for ${span(data.server.uptime)}`);
  showTiles(data);
  state.series = data.series;
  drawPlot();
  showClients(data);
  showSides(data);
  showDetail(data);
}

function showTiles(data) {
  const { totals } = data;
  write($("tile-clients"), number(totals.clients));
  write($("tile-in"), number(totals.in));
  write($("tile-out"), number(totals.out));
  write($("tile-buffer"), bytes(totals.buffer));
  write($("tile-slow"), number(data.slow.length));
  $("tile-slow-box").classList.toggle("alarm", data.slow.length > 0);
  const errors = data.errors.reduce((sum, error) => sum + error.count, 0);
  write($("tile-errors"), number(errors));
  $("tile-errors-box").classList.toggle("alarm", errors > 0);
}

// --- clients ---------------------------------------------------------------------

function clientRow(client) {
  const node = make("tr");
  const button = make("button", "name");
  button.type = "button";
  const name = button.appendChild(foreign());
  const first = node.appendChild(make("td"));
  first.append(button);
  const badge = first.appendChild(make("span", "badge"));
  const group = node.appendChild(make("td")).appendChild(foreign());
  const wire = node.appendChild(make("td", "dim"));
  const cells = [];
  for (let i = 0; i < 5; i += 1) cells.push(node.appendChild(make("td", "number")));
  button.addEventListener("click", () => open(client.id, button));
  return { node, button, name, badge, group, wire, cells };
}

function fillClient(row, client) {
  const name = nameOf(client);
  write(row.name, name);
  if (row.button.title !== name) row.button.title = name;
  const badge = client.connected ? (client.slow ? "slow" : "") : "away";
  write(row.badge, badge);
  row.badge.hidden = !badge;
  const more = client.groups.length - (client.group === null ? 0 : 1);
  const own = client.group === null ? "–" : seen(client.group);
  write(row.group, more > 0 ? `${own} +${more}` : own);
  write(row.wire, client.wire);
  const texts = [
    number(client.rate_in),
    number(client.rate_out),
    bytes(client.buffer),
    milliseconds(client.round_trip),
    span(client.since),
  ];
  texts.forEach((text, i) => write(row.cells[i], text));
  row.node.classList.toggle("chosen", client.id === state.chosen);
}

const clientRows = new Rows($("client-rows"), clientRow, fillClient);

function compare(one, other) {
  const { key, down } = state.sort;
  const [a, b] = [one[key], other[key]];
  if (a === b) return one.id - other.id;
  if (a === null) return 1; // who has none comes last, either way
  if (b === null) return -1;
  const order = typeof a === "string" ? a.localeCompare(b) : a - b;
  return (down ? -order : order) || one.id - other.id;
}

function showClients(data) {
  const clients = [...data.clients].sort(compare);
  clientRows.show(clients, (client) => client.id);
  const { clients: total, dropped } = data.totals;
  const shown = clients.length < total ? `${clients.length} of ${total} shown` : "";
  const away = dropped ? `${dropped} away, may come back` : "";
  write($("clients-note"), [shown, away].filter(Boolean).join(" · "));
  $("clients-empty").hidden = clients.length > 0;
  write($("clients-empty"), total ? "Nobody matches." : "Nobody is here yet.");
}

for (const head of $("sorters").children) {
  head.setAttribute("aria-sort", "none");
  head.firstElementChild.addEventListener("click", () => {
    const { key } = head.dataset;
    const isNumber = head.classList.contains("number");
    // Of numbers the largest are of interest first; a third click is the old order.
    const first = isNumber;
    const { sort } = state;
    if (sort.key !== key) state.sort = { key, down: first };
    else if (sort.down === first) state.sort = { key, down: !first };
    else state.sort = { key: "id", down: false };
    for (const each of $("sorters").children) {
      const is = each.dataset.key === state.sort.key;
      const way = state.sort.down ? "descending" : "ascending";
      each.setAttribute("aria-sort", is ? way : "none");
    }
    poll();
  });
}

$("search").addEventListener("input", () => poll());

// --- groups, slow clients, errors ------------------------------------------------

const groupRows = new Rows(
  $("group-rows"),
  () => plainRow(["words", "number"]),
  (row, group) => {
    write(row.cells[0], seen(group.name));
    write(row.cells[1], number(group.members));
  },
);

const slowRows = new Rows(
  $("slow-rows"),
  () => plainRow(["words", "words"]),
  (row, slow) => {
    write(row.cells[0], nameOf(slow));
    write(row.cells[1], slow.text);
  },
);

/** Handlers without the functions around them, whose names say little. */
function shortly(text) {
  return seen(text.replace(/[\w.]+\.<locals>\./g, ""));
}

function errorRow() {
  const row = plainRow(["number", "number", "words", "words dim mono"]);
  row.raised = row.cells[3].parentElement.appendChild(foreign("raised"));
  return row;
}

const errorRows = new Rows(
  $("error-rows"),
  errorRow,
  (row, error) => {
    write(row.cells[0], `${span(error.age)} ago`);
    write(row.cells[1], number(error.count));
    write(row.cells[2], shortly(error.text));
    write(row.cells[3], shortly(error.where) || seen(error.code));
    write(row.raised, error.line && `raised at ${seen(error.line)}`);
  },
);

function showSides(data) {
  groupRows.show(data.groups, (group) => group.name);
  $("groups-empty").hidden = data.groups.length > 0;
  const slow = data.slow.map((client) => ({
    key: `now ${client.id}`,
    name: client.name,
    text: `${bytes(client.buffer)} wait for it, of ${bytes(data.totals.bound)}`,
  }));
  const cuts = data.cuts.map((cut, i) => ({
    key: `cut ${i}`,
    name: cut.name,
    text: `cut off ${span(cut.age)} ago: ${seen(cut.reason)}`,
  }));
  slowRows.show([...slow, ...cuts], (each) => each.key);
  $("slow-empty").hidden = slow.length + cuts.length > 0;
  errorRows.show(data.errors, (e) => JSON.stringify([e.code, e.where, e.line]));
  $("errors-empty").hidden = data.errors.length > 0;
}

// --- one client ------------------------------------------------------------------

const tailRows = $("tail-rows");

function open(client, button) {
  if (state.chosen !== client) {
    setFollowing(false);
    $("command").value = $("content").value = "";
    write($("detail-title"), button.textContent);
  }
  state.chosen = client;
  state.opener = button;
  $("detail").hidden = false;
  $("split").classList.add("open");
  $("detail-title").focus();
  poll();
}

function close() {
  state.chosen = null;
  setFollowing(false);
  $("detail").hidden = true;
  $("split").classList.remove("open");
  const there = state.opener !== null && state.opener.isConnected;
  (there ? state.opener : $("clients")).focus();
  poll();
}

function setFollowing(on) {
  state.follows = on;
  state.known = 0;
  tailRows.replaceChildren();
  $("tail").hidden = !on;
  $("tail-empty").hidden = false;
  $("follow").setAttribute("aria-pressed", String(on));
  write($("follow"), on ? "Following" : "Follow");
}

function showDetail(data) {
  if (state.chosen === null) return;
  const client = data.chosen;
  const away = client === null;
  $("detail-gone").hidden = !away;
  for (const id of ["follow", "send-it", "disconnect"]) $(id).disabled = away;
  if (!away) {
    write($("detail-title"), nameOf(client));
    write($("fact-address"), seen(client.address));
    write($("fact-wire"), client.wire);
    write($("fact-groups"), client.groups.map(seen).join(", ") || "none");
    write($("fact-link"), client.connected ? "connected" : "cut, may come back");
    write($("fact-came"), number(client.came));
    write($("fact-went"), number(client.went));
    write($("fact-buffer"), bytes(client.buffer));
    write($("fact-round-trip"), milliseconds(client.round_trip));
  }
  if (data.tail !== null && data.tail.client === state.chosen) showTail(data.tail);
}

function showTail(tail) {
  for (const came of tail.commands) {
    const row = make("tr");
    const at = new Date(Date.now() - came.age * 1000);
    row.append(make("td", "dim", at.toLocaleTimeString("en-GB")));
    const command = row.appendChild(make("td", "words"));
    command.append(Object.assign(foreign("mono"), { textContent: seen(came.command) }));
    if (came.payload !== null) {
      const payload = Object.assign(foreign("mono payload"), { textContent: seen(came.payload) });
      command.append(payload);
    }
    row.append(make("td", "number", number(came.size)));
    tailRows.prepend(row);
  }
  state.known = tail.number;
  while (tailRows.childElementCount > TAIL) tailRows.lastElementChild.remove();
  $("tail-empty").hidden = tailRows.childElementCount > 0;
}

$("detail-close").addEventListener("click", close);
$("detail").addEventListener("keydown", (event) => {
  if (event.key === "Escape") close();
});
$("follow").addEventListener("click", () => {
  setFollowing(!state.follows);
  poll();
});
$("payload").addEventListener("change", () => poll());
$("send").addEventListener("submit", (event) => {
  event.preventDefault();
  const command = $("command").value;
  const fields = { client: state.chosen, command, text: $("content").value };
  act("send", fields, `Sent ${seen(command)} to ${$("detail-title").textContent}`);
});
$("disconnect").addEventListener("click", () => {
  write($("confirm-name"), $("detail-title").textContent);
  $("reconnect").checked = false;
  $("confirm").showModal();
});
$("confirm-no").addEventListener("click", () => $("confirm").close());
$("confirm-yes").addEventListener("click", () => {
  const fields = { client: state.chosen };
  if ($("reconnect").checked) fields.reconnect = "1";
  $("confirm").close();
  act("disconnect", fields, `Disconnected ${$("detail-title").textContent}`);
});

// --- the plot --------------------------------------------------------------------

function shape(kind, className) {
  const node = document.createElementNS(SVG, kind);
  node.setAttribute("class", className);
  $("plot").append(node);
  return node;
}

for (const y of ["0", "50", "100"]) {
  const line = shape("line", "grid-line");
  line.setAttribute("x1", "0");
  line.setAttribute("x2", String(SECONDS));
  line.setAttribute("y1", y);
  line.setAttribute("y2", y);
}
const shapes = {
  in: { area: shape("path", "area-in"), line: shape("path", "line-in") },
  out: { area: shape("path", "area-out"), line: shape("path", "line-out") },
};
const cursor = shape("line", "cursor");
cursor.setAttribute("y1", "0");
cursor.setAttribute("y2", "100");
cursor.setAttribute("visibility", "hidden");

/** The next number up that is good to read: 1, 2 or 5 with zeros. */
function round(most) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return [1, 2, 5, 10].map((factor) => factor * unit).find((top) => top >= most);
}

function drawPlot() {
  const { series } = state;
  const most = Math.max(0, ...series.in, ...series.out);
  const top = round(most);
  write($("plot-top"), `${number(top)}`);
  write($("plot-middle"), `${number(top / 2)}`);
  for (const way of ["in", "out"]) {
    const values = series[way];
    const first = SECONDS - values.length;
    const points = values.map((value, i) => `${first + i + 1} ${(100 - (value / top) * 100).toFixed(2)}`);
    const line = points.length ? `M${points.join("L")}` : "";
    shapes[way].line.setAttribute("d", line);
    shapes[way].area.setAttribute("d", line && `${line}L${SECONDS} 100L${first + 1} 100Z`);
  }
  describePlot();
}

function describePlot() {
  const { series } = state;
  const parts = ["in", "out"].map((way) => {
    const values = series[way];
    const now = values.at(-1) ?? 0;
    return `${way}: ${number(now)} now, ${number(Math.max(0, ...values))} at most`;
  });
  const text = `Messages a second over the last 5 minutes. ${parts.join("; ")}.`;
  $("plot").setAttribute("aria-label", text);
  const rows = [];
  for (let back = 0; back < SECONDS; back += 30) {
    const mean = (values) => {
      const part = values.slice(Math.max(0, values.length - back - 30), values.length - back);
      return part.length ? number(part.reduce((a, b) => a + b, 0) / part.length) : "–";
    };
    if (back && back >= series.in.length) break;
    const when = back ? `${back} to ${back + 30} s ago` : "the last 30 s";
    rows.push({ when, in: mean(series.in), out: mean(series.out) });
  }
  plotRows.show(rows, (row) => row.when);
}

const plotRows = new Rows(
  $("plot-rows"),
  () => plainRow(["", "number", "number"]),
  (row, line) => [line.when, line.in, line.out].forEach((text, i) => write(row.cells[i], text)),
);

$("plot").addEventListener("pointermove", (event) => {
  const box = $("plot").getBoundingClientRect();
  const x = Math.min(SECONDS, Math.max(1, Math.round(((event.clientX - box.left) / box.width) * SECONDS)));
  const { series } = state;
  const i = x - 1 - (SECONDS - series.in.length);
  cursor.setAttribute("x1", String(x));
  cursor.setAttribute("x2", String(x));
  cursor.setAttribute("visibility", "visible");
  const ago = SECONDS - x;
  const values = i < 0 ? "nothing known" : `${number(series.in[i])} in, ${number(series.out[i])} out`;
  write($("plot-readout"), `${ago ? `${ago} s ago` : "now"}: ${values}`);
});
$("plot").addEventListener("pointerleave", () => {
  cursor.setAttribute("visibility", "hidden");
  write($("plot-readout"), "");
});

// --- the beginning ---------------------------------------------------------------

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = tokenIn($("token").value);
  $("token").value = "";
  if (!/^[\w-]+$/.test(token)) {
    signIn("That is no token: it has letters, digits, - and _.");
    return;
  }
  state.token = token;
  sessionStorage.setItem(STORED, state.token);
  poll();
});
window.addEventListener("hashchange", () => {
  if (takeToken()) poll();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && state.token) poll();
});

if (!takeToken()) state.token = sessionStorage.getItem(STORED) ?? "";
if (state.token) poll();
else signIn("");
