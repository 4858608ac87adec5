// The whiteboard: sends what is drawn here, and draws what the others send.
import { connect } from "/hisock.js";
import { Paper } from "./paper.js";
import { chosen, refuse, showLink, showPeople, showPointers, whoAmI } from "./panel.js";

const find = (selector) => document.querySelector(selector);
const PIECE = 1000 / 30; // ms between two messages while a line is drawn

const paper = new Paper(find("canvas"));
let me = null;
let stroke = null; // the one that is being drawn
let finger = null; // what draws it: there may be more of them on the glass
let unsent = []; // its points that the others do not have
let count = Date.now(); // a number of our own for each stroke

// --- drawing -------------------------------------------------------------------------

function begin(event) {
  if (event.button || stroke || me === null) return;
  find("canvas").setPointerCapture(event.pointerId);
  stroke = { key: [me, (count += 1)], ...chosen() };
  finger = event.pointerId;
  goOn(event);
}

function goOn(event) {
  if (me === null || (stroke && event.pointerId !== finger)) return;
  client.send("point", paper.placeOf(event), { key: "point" });
  if (!stroke) return;
  // A fast pen moves several times between two events.
  const moves = event.getCoalescedEvents?.() ?? [];
  const points = (moves.length ? moves : [event]).map((move) => paper.placeOf(move));
  unsent.push(...points);
  paper.add({ ...stroke, points });
  find("#empty").hidden = true;
}

function end(event) {
  if (event.pointerId !== finger) return;
  flush();
  stroke = finger = null;
}

function leave() {
  if (me !== null) client.send("point", null, { key: "point" });
}

/** Send a piece: every point counts, so none is replaced by a newer one. */
function flush() {
  if (!stroke || !unsent.length) return;
  const { key, ink, width } = stroke;
  client.send("piece", { stroke: key[1], ink, width, points: unsent });
  unsent = [];
}

// --- what comes ------------------------------------------------------------------------

function start(size, strokes) {
  stroke = finger = null;
  unsent = [];
  paper.start(size, strokes);
  find("#empty").hidden = strokes.length > 0;
}

function showBoard({ size, you, strokes }) {
  me = you;
  start(size, strokes);
}

/** Nothing can be drawn any more; what was can be looked at. */
function stop(error) {
  me = stroke = null;
  for (const control of document.querySelectorAll("button, input")) control.disabled = true;
  showLink("gone", error.message);
}

function add(piece) {
  paper.add(piece);
  find("#empty").hidden = true;
}

const client = await connect("/", { name: whoAmI(), group: "pages" }).catch((error) => {
  showLink("gone", error.message);
  throw error;
});
client.on("board", showBoard);
client.on("piece", add);
client.on("removed", (key) => paper.remove(key));
client.on("cleared", () => start(paper.size, []));
client.on("pointers", (people) => {
  showPeople(people, me);
  showPointers(people, me, paper);
});
client.on("force_disconnect", stop);
client.onDrop(() => showLink("away", "connection lost, trying again"));
client.onResume(() => showLink("here", "connected again, nothing lost"));
client.onSessionLost(() => {
  showLink("here", "connected, to an empty board");
  client.send("look");
});
client.onError(refuse);
client.send("look");
showLink("here", "connected");

const canvas = find("canvas");
canvas.addEventListener("pointerdown", begin);
canvas.addEventListener("pointermove", goOn);
canvas.addEventListener("pointerleave", leave);
for (const event of ["pointerup", "pointercancel"]) canvas.addEventListener(event, end);
setInterval(flush, PIECE);
find("#undo").addEventListener("click", () => client.send("undo"));
find("#clear").addEventListener("click", () => client.send("clear"));
find("#name").addEventListener("change", (event) => client.changeName(whoAmI(event.target.value)));
addEventListener("keydown", (event) => {
  const isUndo = event.key === "z" && (event.ctrlKey || event.metaKey);
  if (isUndo && me !== null && event.target !== find("#name")) client.send("undo");
});
// A goodbye: else the others would keep our pointer as that of somebody in a tunnel.
addEventListener("pagehide", () => client.close());
addEventListener("pageshow", (event) => event.persisted && location.reload());
