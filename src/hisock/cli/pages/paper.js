// The paper: strokes by their keys, drawn on a canvas of whatever size the page has.
import { inks } from "./panel.js";

export class Paper {
  size = 1200;
  #canvas;
  #pen;
  #strokes = new Map();

  constructor(canvas) {
    this.#canvas = canvas;
    this.#pen = canvas.getContext("2d");
    new ResizeObserver(() => this.#redraw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#redraw());
  }

  /** Begin with these strokes. */
  start(size, strokes) {
    this.size = size;
    this.#strokes = new Map(strokes.map((stroke) => [String(stroke.key), stroke]));
    this.#redraw();
  }

  /** Go on with a stroke, or begin one. */
  add({ key, ink, width, points }) {
    const stroke = this.#strokes.get(String(key)) ?? { ink, width, points: [] };
    this.#strokes.set(String(key), stroke);
    const from = stroke.points.length;
    stroke.points.push(...points);
    this.#draw(stroke, from, inks());
  }

  remove(key) {
    this.#strokes.delete(String(key));
    this.#redraw();
  }

  /** The place of the board under a pointer. */
  placeOf({ clientX, clientY }) {
    const { left, top, width } = this.#canvas.getBoundingClientRect();
    const scale = this.size / width;
    return [Math.round((clientX - left) * scale), Math.round((clientY - top) * scale)];
  }

  #redraw() {
    const side = Math.round(this.#canvas.clientWidth * (devicePixelRatio || 1));
    this.#canvas.width = this.#canvas.height = side;
    this.#pen.setTransform(side / this.size, 0, 0, side / this.size, 0, 0);
    this.#pen.lineCap = this.#pen.lineJoin = "round";
    const colours = inks();
    for (const stroke of this.#strokes.values()) this.#draw(stroke, 0, colours);
  }

  /** Draw what a stroke has from a point on; curves go through the middles between points. */
  #draw({ ink, width, points }, from, colours) {
    const pen = this.#pen;
    pen.strokeStyle = colours[ink];
    pen.lineWidth = width;
    pen.beginPath();
    for (let n = from; n < points.length; n += 1) {
      const [before, here] = [points[n - 1] ?? points[n], points[n]];
      pen.moveTo(...middle(points[n - 2] ?? before, before));
      pen.quadraticCurveTo(...before, ...middle(before, here));
      // A little beyond it: a line without length, a dot, would not be drawn.
      if (n === points.length - 1) pen.lineTo(here[0] + 0.1, here[1]);
    }
    pen.stroke();
  }
}

const middle = ([x1, y1], [x2, y2]) => [(x1 + x2) / 2, (y1 + y2) / 2];
