// Draws the field. Between two states everything glides, so 30 a second look like 60.
const TRAIL = 22; // places that a player's tail has
const GLIDE = 14; // a second: how fast what is drawn follows what is so

const shown = new Map(); // player: where it is drawn, and where it was
let bursts = []; // of sparks that were just gathered
let known = new Map(); // the sparks of the last picture
let before = 0;
let size = [1600, 900];

const isDark = matchMedia("(prefers-color-scheme: dark)");
const isStill = matchMedia("(prefers-reduced-motion: reduce)");

/** Forget what was drawn: it has nothing to do with what comes. */
export function forget() {
  shown.clear();
  known.clear();
}

/** How the field lies in the page: it fits whole. */
function frameOf(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  // On a phone held upright the field lies on its side.
  const isTurned = height > width;
  const [w, h] = isTurned ? [size[1], size[0]] : size;
  const scale = Math.min(width / w, height / h);
  return { width, height, scale, isTurned, left: (width - w * scale) / 2, top: (height - h * scale) / 2 };
}

/** The place of the field that is under a place of the page. */
export function placeOf(canvas, pageX, pageY) {
  const { scale, isTurned, left, top } = frameOf(canvas);
  const [x, y] = [(pageX - left) / scale, (pageY - top) / scale];
  return isTurned ? [y, size[1] - x] : [x, y];
}

/** The direction on the field that is this one on the page. */
export function directionOf(canvas, x, y) {
  return frameOf(canvas).isTurned ? [y, -x] : [x, y];
}

const colour = (id, alpha = 1) =>
  `hsl(${(id * 137) % 360} ${isDark.matches ? "85% 66%" : "68% 47%"} / ${alpha})`;

export function draw(canvas, state, me, now) {
  size = state.size;
  const seconds = Math.min(0.1, (now - before) / 1000);
  before = now;
  const frame = frameOf(canvas);
  const { width, height, scale, isTurned, left, top } = frame;
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.translate(left, top);
  pen.scale(scale, scale);
  if (isTurned) pen.transform(0, 1, -1, 0, size[1], 0);
  drawField(pen);
  noteGathered(state, now);
  for (const spark of state.sparks) drawSpark(pen, spark, now);
  for (const player of state.players) glide(player, seconds);
  forgetGone(state.players);
  for (const player of state.players) drawTrail(pen, player);
  for (const player of state.players) drawPlayer(pen, player, player.id === me, isTurned);
  drawBursts(pen, now);
}

function drawField(pen) {
  pen.fillStyle = isDark.matches ? "#171a24" : "#fbfaf6";
  pen.beginPath();
  pen.roundRect(0, 0, ...size, 36);
  pen.fill();
  pen.fillStyle = isDark.matches ? "#262b3a" : "#e6e2d8";
  for (let x = 50; x < size[0]; x += 100) {
    for (let y = 50; y < size[1]; y += 100) pen.fillRect(x - 2, y - 2, 4, 4);
  }
}

// --- sparks ----------------------------------------------------------------------------

function drawSpark(pen, [id, x, y, worth], now) {
  const isBig = worth > 1;
  const beat = isStill.matches ? 0 : Math.sin(now / 300 + id);
  const radius = (isBig ? 15 : 8) + beat * (isBig ? 2.5 : 1);
  const [core, glow] = isDark.matches
    ? [isBig ? "#fff3c4" : "#ffe08a", "255 205 90"]
    : [isBig ? "#ff9d00" : "#f5b82e", "255 176 32"];
  const halo = pen.createRadialGradient(x, y, 0, x, y, radius * 3);
  halo.addColorStop(0, `rgb(${glow} / ${isBig ? 0.7 : 0.45})`);
  halo.addColorStop(1, `rgb(${glow} / 0)`);
  pen.fillStyle = halo;
  pen.fillRect(x - radius * 3, y - radius * 3, radius * 6, radius * 6);
  pen.fillStyle = core;
  pen.beginPath();
  // A star of four points, and of eight for those that count more.
  const points = isBig ? 16 : 8;
  for (let n = 0; n < points; n += 1) {
    const angle = (n * 2 * Math.PI) / points + (isStill.matches ? 0 : now / 2600);
    const far = n % 2 ? radius * 0.5 : radius * 1.25;
    pen.lineTo(x + Math.cos(angle) * far, y + Math.sin(angle) * far);
  }
  pen.fill();
}

/** A spark that is gone was gathered by whoever is nearest. */
function noteGathered({ sparks, players }, now) {
  const present = new Map(sparks.map((spark) => [spark[0], spark]));
  for (const [id, [, x, y, worth]] of known) {
    if (present.has(id)) continue;
    const far = (player) => Math.hypot(player.x - x, player.y - y);
    const [who] = [...players].sort((one, other) => far(one) - far(other));
    if (who && far(who) < 200) bursts.push({ x, y, worth, who: who.id, since: now });
  }
  known = present;
}

function drawBursts(pen, now) {
  bursts = bursts.filter(({ since }) => now - since < 600);
  for (const { x, y, worth, who, since } of bursts) {
    const age = (now - since) / 600;
    pen.strokeStyle = colour(who, 1 - age);
    pen.lineWidth = 5 * (1 - age);
    const rays = worth > 1 ? 14 : 8;
    for (let n = 0; n < rays; n += 1) {
      const angle = (n * 2 * Math.PI) / rays;
      const [from, to] = [24 + age * 50, 34 + age * (worth > 1 ? 110 : 70)];
      pen.beginPath();
      pen.moveTo(x + Math.cos(angle) * from, y + Math.sin(angle) * from);
      pen.lineTo(x + Math.cos(angle) * to, y + Math.sin(angle) * to);
      pen.stroke();
    }
  }
}

// --- players ---------------------------------------------------------------------------

function glide(player, seconds) {
  const place = shown.get(player.id) ?? { x: player.x, y: player.y, trail: [] };
  const share = 1 - Math.exp(-GLIDE * seconds);
  place.x += (player.x - place.x) * share;
  place.y += (player.y - place.y) * share;
  place.trail = [[place.x, place.y], ...place.trail.slice(0, TRAIL)];
  shown.set(player.id, place);
}

function forgetGone(players) {
  const present = new Set(players.map(({ id }) => id));
  for (const id of shown.keys()) if (!present.has(id)) shown.delete(id);
}

function drawTrail(pen, { id, here }) {
  const { trail } = shown.get(id);
  pen.lineCap = "butt";
  for (let n = trail.length - 1; n > 0; n -= 1) {
    const left = 1 - n / TRAIL;
    pen.strokeStyle = colour(id, (here ? 0.4 : 0.15) * left * left);
    pen.lineWidth = 46 * left;
    pen.beginPath();
    pen.moveTo(...trail[n]);
    pen.lineTo(...trail[n - 1]);
    pen.stroke();
  }
}

function drawPlayer(pen, { id, name, vx, vy, here }, isMe, isTurned) {
  const { x, y } = shown.get(id);
  pen.save();
  pen.translate(x, y);
  pen.globalAlpha = here ? 1 : 0.35; // its connection is cut, and it may come back
  pen.fillStyle = colour(id);
  pen.beginPath();
  pen.arc(0, 0, 27, 0, 2 * Math.PI);
  pen.fill();
  if (isMe) {
    pen.strokeStyle = isDark.matches ? "#fff" : "#25231f";
    pen.lineWidth = 4;
    pen.beginPath();
    pen.arc(0, 0, 34, 0, 2 * Math.PI);
    pen.stroke();
  }
  drawFace(pen, vx, vy, isTurned);
  // Names stay upright, whichever way the field lies.
  if (isTurned) pen.rotate(-Math.PI / 2);
  pen.font = "600 26px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.fillStyle = isDark.matches ? "#e9e7e2" : "#3a372f";
  const isAtTop = (isTurned ? x : y) < 90;
  pen.fillText(name, 0, isAtTop ? 64 : -48);
  pen.restore();
}

/** Two eyes that look where it goes. */
function drawFace(pen, vx, vy, isTurned) {
  const speed = Math.max(1, Math.hypot(vx, vy));
  const [lookX, lookY] = [(vx / speed) * 4.5, (vy / speed) * 4.5];
  for (const side of [-9, 9]) {
    const [eyeX, eyeY] = isTurned ? [-4 + lookX, side + lookY] : [side + lookX, -4 + lookY];
    pen.fillStyle = "#fff";
    pen.beginPath();
    pen.arc(eyeX, eyeY, 8, 0, 2 * Math.PI);
    pen.fill();
    pen.fillStyle = "#1b1d24";
    pen.beginPath();
    pen.arc(eyeX + lookX * 0.6, eyeY + lookY * 0.6, 4, 0, 2 * Math.PI);
    pen.fill();
  }
}
