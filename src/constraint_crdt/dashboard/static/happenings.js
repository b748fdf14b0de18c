// What happened: the last events, latest first, and a strip that shows when.
//
// Rules: the events are those of the node that serves the page, with the turns of constraints on all others, as these told. Which are
// shown is in the address, and the time that the strip shows. A constraint that turns again and again on a node has a single line, which says how
// often, and comes to the top with each turn.

import { byId, fitted, h, perFrame, setAttribute, setText } from "./dom.js";
import { at, duration, plural } from "./format.js";
import { colour, onTheme } from "./theme.js";

const SHOWN = 120;
const STRIPS = [600, 3600, 21600, 86400]; // s
const WHEEL_EVERY = 150; // ms
const FLAPPING = 4; // turns from which on they have one line
const TOGETHER = 2e9; // ns
const CALM = 600e9; // ns without a turn after which the next is told by itself

// Kind: [glyph, tone, words]. `{b}` is the budget, `{c}` the constraint, `{n}` the node.
const WORDS = {
  added: ["+", "new", "{c} was added"],
  changed: ["~", "new", "{c} was changed"],
  removed: ["–", "calm", "{c} was removed"],
  expired: ["–", "calm", "{c} expired"],
  parameter: ["=", "calm", "a parameter was set:"],
  disabled: ["–", "warn", "{c} is disabled: no node evaluates it"],
  enabled: ["+", "calm", "{c} is evaluated again"],
  conflict: ["!", "bad", "{c} has definitions that differ"],
  violated: ["✕", "bad", "{c} is violated on {n}"],
  satisfied: ["✓", "good", "{c} is satisfied again on {n}"],
  unknown: ["?", "warn", "{c} cannot be decided on {n}"],
  "peer up": ["↑", "good", "{n} is live"],
  "peer down": ["↓", "warn", "{n} is not live"],
  "duplicate name": ["!", "bad", "another node has the name {n}"],
  diverged: ["!", "bad", "{n} has our clock and another state: one of the two is damaged"],
  repaired: ["✓", "good", "cells were repaired with {n}"],
  "clock skew": ["!", "warn", "the clock of {n} differs"],
  "clock stepped": ["!", "warn", "the clock of this node was set"],
  "clock doubted": ["!", "bad", "the clock of this node is in doubt"],
  "clock trusted": ["✓", "good", "the clock of this node is right again"],
  "rolled back": ["!", "bad", "the store of {n} had been put back: writes were missing"],
  "new life": ["•", "calm", "{n} began a new life"],
  retired: ["–", "calm", "{n} was retired for good"],
  "retirement undone": ["+", "calm", "{n} is in service again"],
  revoked: ["!", "warn", "the keys of {n} were revoked"],
  forked: ["!", "bad", "{n} runs twice, or lies"],
  "tile put": ["+", "new", "a tile was written:"],
  "tile deleted": ["–", "calm", "a tile was deleted:"],
  "budget added": ["+", "new", "the budget {b} was defined"],
  "budget changed": ["~", "new", "the budget {b} was changed"],
  "budget removed": ["–", "calm", "the budget {b} was removed"],
  "budget conflict": ["!", "warn", "limits of the budget {b} were set at once"],
  "budget stranded": ["!", "warn", "rights of the budget {b} are out of reach"],
  "budget reachable": ["✓", "good", "all rights of the budget {b} can be reached"],
  trouble: ["!", "bad", "writes are refused"],
  recovered: ["✓", "good", "writes are accepted again"],
  alert: ["!", "bad", "alert"],
  "alert resolved": ["✓", "good", "alert over"],
  silenced: ["–", "calm", "alerts are silenced"],
  "silence ended": ["•", "calm", "a silence was ended"],
  rollout: ["~", "new", "rollout"],
  gap: ["…", "calm", "events were missed"],
  dropped: ["…", "calm", "this page was too slow, and was disconnected"],
};

// Which kinds a filter shows.
const FILTERS = {
  violations: ["violated", "satisfied", "unknown"],
  constraints: ["added", "changed", "removed", "expired", "conflict", "parameter", "disabled", "enabled", "rollout"],
  nodes: ["peer up", "peer down", "duplicate name", "new life", "retired", "retirement undone", "revoked", "forked"],
  alerts: ["alert", "alert resolved", "silenced", "silence ended"],
  budgets: ["budget added", "budget changed", "budget removed", "budget conflict", "budget stranded", "budget reachable"],
  clocks: ["clock skew", "clock stepped", "clock doubted", "clock trusted"],
  tiles: ["tile put", "tile deleted"],
  trouble: ["trouble", "recovered", "diverged", "repaired", "rolled back", "duplicate name", "forked", "gap", "dropped"],
};

const tone = (event) => (WORDS[event.kind] ?? [])[1] ?? "calm";

export class Happenings {
  #known = new WeakSet(); // events that were looked at
  #undecided = new Map(); // node: {event, count, line}, of constraints that became unknown together
  #turns = new Map(); // "constraint\nnode": {lines, count, first, last}
  #wanted = null;
  #turnedAt = 0;

  constructor(model, address) {
    this.model = model;
    this.address = address;
    this.list = byId("events");
    const draw = perFrame(() => this.#draw());
    const show = perFrame(() => this.#show());
    this.redraw = draw;
    model.on("events", () => {
      show();
      draw();
    });
    byId("events-kind").append(h("option", { value: "" }, "all kinds"), ...Object.keys(FILTERS).map((kind) => h("option", { value: kind }, kind)));
    byId("events-kind").addEventListener("change", () => address.set({ kind: byId("events-kind").value }));
    byId("events-about").addEventListener("input", () => address.set({ about: byId("events-about").value }));
    byId("strip-range").addEventListener("click", () => this.#zoom(null));
    byId("strip").addEventListener("wheel", (event) => {
      event.preventDefault();
      if (Math.abs(event.deltaY) >= 1 && event.timeStamp - this.#turnedAt > WHEEL_EVERY) {
        this.#turnedAt = event.timeStamp;
        this.#zoom(Math.sign(event.deltaY));
      }
    });
    address.follow(() => this.#looked());
    onTheme(draw);
    new ResizeObserver(draw).observe(byId("strip"));
    setInterval(draw, 5000);
  }

  // The address asks for other events.
  #looked() {
    this.#named();
    this.redraw();
    const wanted = `${this.address.get("kind")}\n${this.address.get("about")}`;
    if (wanted === this.#wanted) return;
    this.#wanted = wanted;
    byId("events-kind").value = this.address.get("kind");
    if (byId("events-about").value !== this.address.get("about")) byId("events-about").value = this.address.get("about");
    this.list.replaceChildren();
    this.#turns.clear();
    this.#undecided.clear();
    this.#known = new WeakSet();
    this.#show();
  }

  #isWanted(event) {
    const kinds = FILTERS[this.address.get("kind")];
    if (kinds && !kinds.includes(event.kind)) return false;
    const about = this.address.get("about").toLowerCase();
    return !about || [event.constraint, event.node, event.detail, event.actor].some((each) => each?.toLowerCase().includes(about));
  }

  // New ones are put where their time is, mostly on top, and old ones taken away; what stays is not touched.
  #show() {
    const { events } = this.model;
    const fresh = events.filter((event) => !this.#known.has(event));
    for (const event of fresh) this.#known.add(event);
    const wanted = fresh.filter((event) => this.#isWanted(event)).slice(0, 4 * SHOWN); // a flapping constraint has one line of many
    for (const event of wanted.reverse()) this.#put(event);
    while (this.list.childElementCount > SHOWN) this.list.lastElementChild.remove();
    setText(byId("timeline-note"), this.list.childElementCount ? "" : events.length ? "none of these" : "none yet");
  }

  #put(event) {
    if (event.kind === "unknown") {
      this.#putUnknown(event);
      return;
    }
    const turned = (event.kind === "violated" || event.kind === "satisfied") && event.constraint;
    if (!turned) {
      this.#insert(line(event), event.time);
      return;
    }
    const key = `${event.constraint}\n${event.node}`;
    let turns = this.#turns.get(key);
    if (turns === undefined || event.time - turns.last > CALM) {
      turns = { lines: [], count: 0, first: event.time, last: 0 };
      this.#turns.delete(key);
      this.#turns.set(key, turns);
      if (this.#turns.size > SHOWN) this.#turns.delete(this.#turns.keys().next().value);
    }
    turns.count += 1;
    turns.last = Math.max(turns.last, event.time);
    const flaps = turns.count >= FLAPPING;
    if (flaps) {
      for (const old of turns.lines) old.remove();
      turns.lines = [];
    }
    turns.lines.push(flaps ? flapping(event, turns) : line(event));
    this.#insert(turns.lines.at(-1), event.time);
  }

  // A sensor that fails, or a node that starts, leaves many constraints unknown at once: they have one line.
  #putUnknown(event) {
    let together = this.#undecided.get(event.node);
    if (together === undefined || Math.abs(event.time - together.event.time) > TOGETHER) {
      together = { event, count: 0, line: null };
      this.#undecided.set(event.node, together);
      if (this.#undecided.size > SHOWN) this.#undecided.delete(this.#undecided.keys().next().value);
    }
    together.count += 1;
    together.line?.remove();
    together.line = line(together.event, together.count - 1);
    this.#insert(together.line, together.event.time);
  }

  #insert(element, time) {
    element.at = time;
    let later = this.list.firstElementChild;
    while (later !== null && later.at > time) later = later.nextElementSibling;
    this.list.insertBefore(element, later);
  }

  get #strip() {
    const wanted = Number(this.address.get("strip"));
    return STRIPS.includes(wanted) ? wanted : STRIPS[0];
  }

  // `by` 1: a longer time; -1: a shorter one; null: the next, round and round.
  #zoom(by) {
    const at = STRIPS.indexOf(this.#strip);
    const to = by === null ? (at + 1) % STRIPS.length : Math.min(Math.max(at + by, 0), STRIPS.length - 1);
    this.address.set({ strip: String(STRIPS[to]) });
  }

  #named() {
    const words = `last ${duration(this.#strip).replace(" 0 min", "")}`;
    setText(byId("strip-range"), words);
    setAttribute(byId("strip-range"), "aria-label", `The strip shows the ${words}: show another time`);
  }

  #draw() {
    const { context, width, height } = fitted(byId("strip"));
    const now = Date.now();
    context.strokeStyle = colour("line");
    context.beginPath();
    for (let part = 0; part <= 10; part += 1) {
      const x = Math.round((width * part) / 10) + 0.5;
      context.moveTo(x, height - (part % 5 ? 4 : 8));
      context.lineTo(x, height);
    }
    context.moveTo(0, height - 0.5);
    context.lineTo(width, height - 0.5);
    context.stroke();
    for (const event of this.model.events) {
      const x = width * (1 - (now - event.time / 1e6) / (1000 * this.#strip));
      if (x < 0) break;
      if (!this.#isWanted(event)) continue;
      const kind = tone(event);
      const tall = kind === "bad" ? 1 : kind === "calm" ? 0.45 : 0.7;
      context.fillStyle = colour(`tone-${kind}`);
      context.fillRect(Math.min(x, width - 2), height - 2 - tall * (height - 4), 2, tall * (height - 4));
    }
  }
}

const subject = (kind, id) => h("a", { href: `#/${kind}/${encodeURIComponent(id)}` }, id);
const when = (time) => h("time", { datetime: new Date(time / 1e6).toISOString() }, at(time));

// One line for the turns of a constraint on a node.
function flapping(event, { count, first }) {
  const bad = event.kind === "violated";
  const words = h("span", null, subject("constraint", event.constraint), " flaps on ", event.node ? subject("node", event.node) : "…", `: ${count} turns since ${at(first)}, `, bad ? "violated now" : "satisfied now", event.detail ? h("small", null, event.detail) : null);
  return h("li", { class: bad ? "bad" : "warn", "data-kind": "flapping" }, when(event.time), h("i", { "aria-hidden": "true" }, "⇅"), words);
}

// `others`: constraints of which the same is to be said.
function line(event, others = 0) {
  const [glyph, kind, words] = WORDS[event.kind] ?? ["•", "calm", event.kind];
  const parts = words.split(/(\{[bcn]\})/).flatMap((part) => {
    if (part === "{c}" && event.constraint) return others ? [subject("constraint", event.constraint), ` and ${plural(others, "other", "others")}`] : subject("constraint", event.constraint);
    if (part === "{n}" && event.node) return subject("node", event.node);
    return part === "{b}" && event.budget ? event.budget : part.replace(/\{[bcn]\}/, "…");
  });
  const about = event.kind.startsWith("alert") && (event.constraint ? subject("constraint", event.constraint) : event.node && subject("node", event.node));
  const tile = event.tile ? ` ${event.room}/${event.tile}` : "";
  return h(
    "li",
    { class: kind, "data-kind": event.kind },
    when(event.time),
    h("i", { "aria-hidden": "true" }, glyph),
    h("span", null, parts, about ? [" about ", about] : null, tile, event.detail ? h("small", null, event.detail) : null, event.actor ? h("small", null, `by ${event.actor} on ${event.by}`) : null),
  );
}
