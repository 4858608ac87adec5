// The page of the chat. All that others wrote is shown as text, never as HTML.
import { connect } from "/hisock.js";

const find = (selector) => document.querySelector(selector);
const lines = find("#lines");
const waiting = find("#waiting");
const dialog = find("#who");
const FIRST_ROOM = location.hash.slice(1) || "Lobby";
const MINUTES = 5 * 60; // lines of one person within these stand together
const TAKEN = "Somebody here has that name. Another one?";
const REFUSALS = { name_taken: TAKEN, rename_refused: TAKEN };

let client = null;
let last = {}; // the newest line that is shown
const losses = []; // what to say once the server has said what there is now

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/** The same colour for the same name, everywhere. */
function hueOf(name) {
  let sum = 7;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) % 360;
  return sum;
}

function badge(name) {
  const element = make("span", "badge", [...name][0]?.toUpperCase());
  element.style.setProperty("--hue", hueOf(name));
  element.ariaHidden = "true";
  return element;
}

// --- lines -------------------------------------------------------------------------

function show(line) {
  const { who, text, time } = line;
  // Looked at before the line makes the list longer.
  const wasAtEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 80;
  if (!who) lines.append(make("li", "note", text));
  else {
    const isMine = who === client.name;
    const item = make("li", isMine ? "line mine" : "line");
    if (who !== last.who || time - last.time > MINUTES) {
      const clock = new Date(time * 1000).toLocaleTimeString([], { timeStyle: "short" });
      const head = make("div", "head");
      head.append(make("b", "", isMine ? "You" : who), make("time", "", clock));
      item.append(badge(who), head);
    }
    item.append(make("p", "", text));
    lines.append(item);
  }
  last = line;
  if (wasAtEnd || who === client.name) lines.scrollTop = lines.scrollHeight;
}

function showRoom(earlier) {
  lines.replaceChildren();
  last = {};
  earlier.forEach(show);
  showLosses();
  lines.scrollTop = lines.scrollHeight;
  find("#room").textContent = client.group;
  history.replaceState(null, "", `#${client.group}`);
}

function showWhoIsHere(rooms) {
  if (!(client.group in rooms)) return client.changeGroup("Lobby"); // a link to nowhere
  const buttons = Object.entries(rooms).map(([name, people]) => {
    const button = make("button", "", name);
    button.type = "button";
    button.append(make("span", "count", people.length || ""));
    button.ariaCurrent = String(name === client.group);
    button.addEventListener("click", () => name === client.group || client.changeGroup(name));
    return button;
  });
  find("#rooms").replaceChildren(...buttons);
  const people = (rooms[client.group] ?? []).sort().map((name) => {
    const person = make("li", "");
    person.append(badge(name), make("span", "", name));
    if (name === client.name) person.append(make("small", "", "you"));
    return person;
  });
  find("#people").replaceChildren(...people);
}

// --- the connection, as it is --------------------------------------------------------

function showLink(state, text) {
  find("#link").dataset.state = state;
  find("#link").textContent = text;
}

function showLosses() {
  lines.append(...losses.splice(0).map((text) => make("li", "note", text)));
}

function beginAnew() {
  losses.unshift("The server began anew, and has forgotten earlier lines.");
  showLink("here", "connected anew");
}

function end(error) {
  showLosses();
  showLink("gone", error.message);
}

// --- coming in, and going on ----------------------------------------------------------

async function comeIn(name) {
  client = await connect("/", { name, group: FIRST_ROOM });
  client.on("lines", showRoom);
  client.on("line", show);
  client.on("here", showWhoIsHere);
  client.on("force_disconnect", end);
  client.onDrop(() => showLink("away", "connection lost, trying again"));
  client.onResume(() => showLink("here", "connected again, nothing lost"));
  client.onSessionLost(beginAnew);
  client.onError(({ code, message }) => ask(REFUSALS[code] ?? message));
  showLink("here", "connected");
  // A goodbye: else the others would wait for us as for somebody in a tunnel.
  addEventListener("pagehide", () => client.close());
}

function ask(refusal = "") {
  find("#refusal").textContent = refusal;
  if (!dialog.open) dialog.showModal();
}

dialog.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = event.target.elements.name.value.trim();
  if (!name) return;
  event.submitter.disabled = true; // who presses twice comes in once
  try {
    if (client) client.changeName(name);
    else await comeIn(name);
    sessionStorage.setItem("name", name);
    dialog.close();
    find("#say input").focus();
  } catch (error) {
    ask(REFUSALS[error.code] ?? error.message);
  }
  event.submitter.disabled = false;
});

/** Say it now, or as soon as there is a connection; until the server has it, it waits. */
async function say(text) {
  const item = make("li", "", text);
  waiting.append(item);
  try {
    await client.call("say", text, { timeout: null });
  } catch {
    losses.push(`Nobody knows whether this arrived: ${text}`);
  }
  item.remove();
}

find("#say").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = event.target.elements.text;
  const text = input.value.trim();
  if (!client) return ask();
  if (text) say(text);
  input.value = "";
});

find("#rename").addEventListener("click", () => ask());
// Without a name there is nothing to see behind the question.
dialog.addEventListener("cancel", (event) => client || event.preventDefault());
// After Back a browser may show a page as it was left: without its connection.
addEventListener("pageshow", (event) => event.persisted && location.reload());
dialog.querySelector("input").value = sessionStorage.getItem("name") ?? "";
ask();
