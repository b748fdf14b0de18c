// The fleet on its hexagonal lattice: where each node stands, how often constraints held there, and whether it knows what we know.
//
// A position a + b·ω (ω = e^(2πi/3)) is the point (a - b/2, b·√3/2) of the plane. Its six neighbours are ±1, ±ω, ±(1 + ω), so each
// position is the middle of a hexagon with a corner on top. Rules: nodes at one position stand around it; nodes without a position
// stand in rows below, or, if nobody has one, in a spiral by name.

import { fitted, perFrame } from "./dom.js";
import { percent } from "./format.js";
import { colour, onTheme } from "./theme.js";

const HEIGHT = Math.sqrt(3) / 2;
const UNITS = [[1, 0], [1, 1], [0, 1], [-1, 0], [-1, -1], [0, -1]];
const LARGEST = 124; // px between two neighbours
const LEAST_RADIUS = 5; // px of a hexagon, however far apart the nodes are
const NAMED_FROM = 20; // px of radius from which on a hexagon has room for a name
const PADDING = 10;
const TOWARDS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// The share of evaluations that did not hold, in steps that tell one in a thousand from none.
export const LEVELS = [0, 0.01, 0.05, 0.2, 1];
export const LEVEL_WORDS = ["all held", "to 1 % violated", "to 5 %", "to 20 %", "more"];

export function level(held) {
  return held === null ? null : LEVELS.findIndex((most) => 1 - held <= most + 1e-9);
}

export class Lattice {
  #places = [];
  #placed = "";
  #points = [];
  #radius = 0;
  #at = null;

  // `open(name)`; `point(name or null)`: somebody points at a node.
  constructor(canvas, model, open, point) {
    Object.assign(this, { canvas, model, open, point });
    this.draw = perFrame(() => this.#draw());
    this.selected = null;
    model.on("nodes status connection", this.draw);
    onTheme(this.draw);
    new ResizeObserver(this.draw).observe(canvas);
    canvas.addEventListener("pointermove", (event) => this.#aim(this.#under(event)));
    canvas.addEventListener("pointerleave", () => this.#aim(null));
    canvas.addEventListener("click", (event) => {
      const name = this.#under(event);
      if (name !== null) this.open(name);
    });
    canvas.addEventListener("keydown", (event) => this.#pressed(event));
    canvas.addEventListener("blur", () => this.#aim(null));
    canvas.addEventListener("focus", () => this.#at === null && canvas.matches(":focus-visible") && this.#aim(this.#points[0]?.name ?? null));
  }

  select(name) {
    this.selected = name;
    this.draw();
  }

  #draw() {
    const { context, width, height } = fitted(this.canvas);
    const nodes = [...this.model.nodes.values()].filter((node) => !node.retired && !node.revoked);
    if (!nodes.length || width < 2) return;
    this.#place(nodes);
    this.#fit(width, height);
    this.canvas.setAttribute("aria-label", `${nodes.length} nodes of the fleet`);
    const marked = new Set([this.selected, this.#at]);
    for (const point of this.#points) if (!marked.has(point.name)) this.#node(context, point);
    for (const point of this.#points) if (marked.has(point.name)) this.#node(context, point, true);
    performance.mark("lattice-drawn");
  }

  // Where each node stands on the lattice. Only what they say about positions matters, so it seldom changes.
  #place(nodes) {
    const key = JSON.stringify(nodes.map((node) => [node.node, node.position]));
    if (key === this.#placed) return;
    this.#placed = key;
    const taken = new Map();
    const standing = nodes.filter((node) => node.position);
    const lost = nodes.filter((node) => !node.position);
    for (const node of standing) take(taken, node.position, node.node);
    if (!standing.length) {
      for (const node of lost) take(taken, [0, 0], node.node);
    } else if (lost.length) {
      const spots = [...taken.values()].map(({ at }) => toPlane(at));
      const left = Math.min(...spots.map((spot) => spot.x));
      const wide = Math.max(Math.ceil(Math.max(...spots.map((spot) => spot.x)) - left), Math.ceil(Math.sqrt(lost.length)), 3) + 1;
      const row = Math.min(...[...taken.values()].map(({ at }) => at[1])) - 2;
      lost.forEach((node, index) => {
        const b = row - Math.floor(index / wide);
        take(taken, [Math.ceil(left + b / 2) + (index % wide), b], node.node, true);
      });
    }
    this.#places = [...taken.values()].map(({ at, name, lost: without }) => ({ name, without, ...toPlane(at) }));
  }

  #fit(width, height) {
    const xs = this.#places.map((place) => place.x);
    const ys = this.#places.map((place) => place.y);
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const scale = Math.min((width - 2 * PADDING) / (right - left + 1), (height - 2 * PADDING) / (bottom - top + 1.16), LARGEST);
    this.#radius = Math.max((scale / Math.sqrt(3)) * 0.93, LEAST_RADIUS);
    const dx = width / 2 - ((left + right) / 2) * scale;
    const dy = height / 2 - ((top + bottom) / 2) * scale;
    this.#points = this.#places.map(({ name, without, x, y }) => ({ name, without, x: x * scale + dx, y: y * scale + dy }));
  }

  #node(context, { name, x, y, without }, marked = false) {
    const node = this.model.nodes.get(name);
    if (!node) return;
    const radius = this.#radius;
    const held = this.model.held(name);
    const step = level(held);
    hexagon(context, x, y, radius);
    context.fillStyle = colour(!node.live ? "gone" : step === null ? "level-none" : `level-${step}`);
    context.fill();
    const ring = Math.min(Math.max(radius * 0.1, 1.2), 3);
    hexagon(context, x, y, radius - ring / 2);
    context.lineWidth = ring;
    context.setLineDash(!node.live ? [2, 3] : node.same_state ? [] : [5, 3]);
    context.strokeStyle = colour(!node.live ? "faint" : node.same_state ? "ring-same" : "ring-behind");
    context.stroke();
    context.setLineDash([]);
    if (radius >= NAMED_FROM) this.#words(context, node, held, x, y);
    else if (!node.live) cross(context, x, y, radius * 0.4);
    if (name === this.model.status?.node) {
      context.beginPath();
      context.arc(x, y - (radius >= NAMED_FROM ? radius * 0.62 : 0), Math.max(radius * 0.1, 2.2), 0, 2 * Math.PI);
      context.fillStyle = colour("ink");
      context.fill();
    }
    if (without && radius >= NAMED_FROM) {
      context.fillStyle = colour("muted");
      context.font = "10px system-ui, sans-serif";
      context.fillText("no position", x, y + radius * 0.66);
    }
    if (!marked) return;
    hexagon(context, x, y, radius + 2);
    context.lineWidth = 2.5;
    context.strokeStyle = colour("focus");
    context.stroke();
  }

  #words(context, node, held, x, y) {
    const most = this.#radius * 1.55;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = colour(node.live ? "ink" : "muted");
    context.font = `600 ${Math.min(15, this.#radius * 0.36)}px system-ui, sans-serif`;
    let name = node.node;
    while (name.length > 3 && context.measureText(name).width > most) name = `${name.slice(0, -2)}…`;
    context.fillText(name, x, y - this.#radius * 0.12);
    context.font = `${Math.min(13, this.#radius * 0.31)}px system-ui, sans-serif`;
    context.fillText(node.live ? (held === null ? "idle" : percent(held)) : "not live", x, y + this.#radius * 0.3);
  }

  #under(event) {
    const box = this.canvas.getBoundingClientRect();
    const found = this.#closest(event.clientX - box.left, event.clientY - box.top);
    return found && Math.hypot(found.x + box.left - event.clientX, found.y + box.top - event.clientY) <= this.#radius + 2 ? found.name : null;
  }

  #closest(x, y) {
    let best = null;
    let least = Infinity;
    for (const point of this.#points) {
      const far = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (far < least) [best, least] = [point, far];
    }
    return best;
  }

  #aim(name) {
    if (name === this.#at) return;
    this.#at = name;
    this.canvas.style.cursor = name === null ? "" : "pointer";
    this.point(name);
    this.draw();
  }

  #pressed(event) {
    if (event.key === "Enter" && this.#at !== null) this.open(this.#at);
    const towards = TOWARDS[event.key];
    if (towards === undefined || !this.#points.length) return;
    event.preventDefault();
    const here = this.#points.find((point) => point.name === this.#at) ?? this.#points[0];
    let best = null;
    let least = Infinity;
    for (const point of this.#points) {
      const along = (point.x - here.x) * towards[0] + (point.y - here.y) * towards[1];
      if (point === here || along <= 1) continue;
      const aside = Math.abs((point.x - here.x) * towards[1]) + Math.abs((point.y - here.y) * towards[0]);
      if (along + 2 * aside < least) [best, least] = [point, along + 2 * aside];
    }
    if (best !== null) this.#aim(best.name);
  }
}

function toPlane([a, b]) {
  return { x: a - b / 2, y: -b * HEIGHT };
}

// Takes the closest free position, ring by ring.
function take(taken, at, name, lost = false) {
  const put = (a, b) => {
    const key = `${a},${b}`;
    if (taken.has(key)) return false;
    taken.set(key, { at: [a, b], name, lost });
    return true;
  };
  if (put(at[0], at[1])) return;
  for (let ring = 1; ; ring += 1) {
    let [a, b] = [at[0] + ring, at[1]];
    for (const [da, db] of [UNITS[2], UNITS[3], UNITS[4], UNITS[5], UNITS[0], UNITS[1]]) {
      for (let step = 0; step < ring; step += 1) {
        if (put(a, b)) return;
        a += da;
        b += db;
      }
    }
  }
}

function hexagon(context, x, y, radius) {
  context.beginPath();
  for (let corner = 0; corner < 6; corner += 1) {
    const angle = (Math.PI / 3) * corner - Math.PI / 2;
    context.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  context.closePath();
}

function cross(context, x, y, size) {
  context.beginPath();
  context.moveTo(x - size, y - size);
  context.lineTo(x + size, y + size);
  context.moveTo(x + size, y - size);
  context.lineTo(x - size, y + size);
  context.strokeStyle = colour("muted");
  context.lineWidth = 1.2;
  context.stroke();
}
