// Where the player wants to go: by keys, or by pointing with a mouse or a finger.
import { directionOf, placeOf } from "./draw.js";

const KEYS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
  KeyA: [-1, 0], KeyD: [1, 0], KeyW: [0, -1], KeyS: [0, 1],
};
const CALM = 120; // nearer than this to where it points, the player slows down

const held = new Set();
let pointer = null; // of the page, while it is down

addEventListener("keydown", (event) => {
  if (!(event.code in KEYS) || event.target.closest?.("dialog")) return;
  held.add(event.code);
  event.preventDefault(); // the page does not scroll
});
addEventListener("keyup", (event) => held.delete(event.code));
// Nobody tells which keys are let go while another window has the keyboard.
addEventListener("blur", () => held.clear());

const point = (event) => (pointer = [event.clientX, event.clientY]);
addEventListener("pointerdown", (event) => event.target.closest?.("canvas") && point(event));
addEventListener("pointermove", (event) => pointer && point(event));
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => (pointer = null));

/** The direction in which a player is to be pushed; its length is how hard, up to 1. */
export function steering(canvas, player) {
  if (pointer) {
    const [x, y] = placeOf(canvas, ...pointer);
    const way = [(x - player.x) / CALM, (y - player.y) / CALM];
    const length = Math.max(1, Math.hypot(...way));
    return way.map((part) => Math.round((100 * part) / length) / 100);
  }
  const ways = [...held].map((key) => KEYS[key]);
  return directionOf(canvas, ...ways.reduce(([x, y], [dx, dy]) => [x + dx, y + dy], [0, 0]));
}
