// The page of the game: sends where the player steers, and draws what the server says.
import { connect } from "/hisock.js";
import { draw, forget } from "./draw.js";
import { steering } from "./steering.js";

const find = (selector) => document.querySelector(selector);
const canvas = find("#field");
const dialog = find("#who");
const RESEND = 1000 / 30; // ms; the server moves things no more often

let me = null; // our number
let state = null; // the newest that came
let arrivals = []; // when those of the last second came
let sent = [0, 0]; // where the server thinks that we steer

function showLink(state, text) {
  find("#link").dataset.state = state;
  find("#link").textContent = text;
}

function showScores(players) {
  const best = [...players].sort((one, other) => other.score - one.score).slice(0, 8);
  const rows = best.map(({ id, name, score, here }) => {
    const row = document.createElement("li");
    const [who, points] = [document.createElement("span"), document.createElement("b")];
    who.textContent = name;
    points.textContent = score;
    row.style.setProperty("--hue", (id * 137) % 360);
    row.classList.toggle("me", id === me);
    row.classList.toggle("away", !here);
    row.append(who, points);
    return row;
  });
  find("#scores").replaceChildren(...rows);
}

function take(newest) {
  state = newest;
  const now = performance.now();
  arrivals = [...arrivals.filter((then) => now - then < 1000), now];
  showScores(state.players);
  showLink("here", `${arrivals.length} updates a second`);
  canvas.dataset.tick = state.tick; // for whoever looks from outside
}

/** The server began anew: other players, other sparks, and nobody steers. */
function beginAnew() {
  forget();
  sent = [0, 0];
}

function everyFrame(now) {
  if (state) draw(canvas, state, me, now);
  requestAnimationFrame(everyFrame);
}

function steer(client) {
  const self = state?.players.find(({ id }) => id === me);
  if (!self) return;
  const towards = steering(canvas, self);
  if (towards[0] === sent[0] && towards[1] === sent[1]) return;
  sent = towards;
  find("#help").classList.add("done");
  // A key: of all that wait to be sent only the newest matters.
  client.send("steer", towards, { key: "steer" });
}

async function play(name) {
  const client = await connect("/", { name });
  client.on("you", (number) => (me = number));
  client.on("state", take);
  client.on("force_disconnect", (error) => {
    clearInterval(timer);
    showLink("gone", error.message);
  });
  client.onDrop(() => showLink("away", "connection lost, trying again"));
  client.onResume(() => showLink("here", "connected again"));
  client.onSessionLost(beginAnew);
  const timer = setInterval(() => steer(client), RESEND);
  addEventListener("pagehide", () => client.close());
}

dialog.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = event.target.elements.name.value.trim();
  event.submitter.disabled = true; // who presses twice plays once
  try {
    await play(name);
    sessionStorage.setItem("name", name);
    dialog.close();
  } catch (error) {
    find("#refusal").textContent = error.message;
  }
  event.submitter.disabled = false;
});

dialog.addEventListener("cancel", (event) => event.preventDefault());
addEventListener("pageshow", (event) => event.persisted && location.reload());
dialog.querySelector("input").value = sessionStorage.getItem("name") ?? "";
dialog.showModal();
requestAnimationFrame(everyFrame);
