// The last events, latest first, and a strip that shows when they were.
//
// Rules: the events are those of the node that serves the page, with the turns of constraints on all others, as these told. Which are
// shown is in the address, and the time that the strip shows. A constraint that turns again and again has a single line, which says where and how
// often, and comes to the top with each turn. What happens at once on many nodes, or to many constraints of a node, has a single line, too.

import { byId, fitted, h, perFrame, setAttribute, setText } from "./dom.js";
import { at, duration, plural } from "./format.js";
import { colour, onTheme } from "./theme.js";

const SHOWN = 120;
const STRIPS = [600, 3600, 21600, 86400]; // s
const WHEEL_EVERY = 150; // ms
const FLAPPING = 4; // turns on a node, from which on they have one line
const MANY = 3; // nodes with the same at once, which have one line
const AT_ONCE = 10e9; // ns
const MANY_HERE = 5; // constraints of a node at once, which have one line: where it is said which, if there are fewer
const UNKNOWN_HERE = 2; // of those that cannot be decided, which is mostly one sensor
const HERE_AT_ONCE = 2e9; // ns
const NAMED = 3; // of those, by name
const TURNED = new Set(["violated", "satisfied", "unknown"]);
const JOINED = new Set([...TURNED, "peer up", "peer down"]);
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

export class EventList {
  #lines = new Map(); // those shown, by key
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
    this.#show();
  }

  #isWanted(event) {
    const kinds = FILTERS[this.address.get("kind")];
    if (kinds && !kinds.includes(event.kind)) return false;
    const about = this.address.get("about").toLowerCase();
    return !about || [event.constraint, event.node, event.detail, event.actor].some((each) => each?.toLowerCase().includes(about));
  }

  // What stays is not touched.
  #show() {
    const { events } = this.model;
    const wanted = lines(events.filter((event) => this.#isWanted(event)).reverse()).reverse().sort((a, b) => b.time - a.time).slice(0, SHOWN);
    const before = this.#lines;
    this.#lines = new Map();
    for (const { key, state, make } of wanted) {
      const known = before.get(key);
      this.#lines.set(key, known?.state === state ? known : { state, element: make() });
    }
    const shown = [...this.#lines.values()].map(({ element }) => element);
    const staying = new Set(shown);
    for (const old of [...this.list.children]) if (!staying.has(old)) old.remove();
    let next = this.list.firstElementChild;
    for (const element of shown) {
      if (element === next) next = next.nextElementSibling;
      else this.list.insertBefore(element, next);
    }
    setText(byId("timeline-note"), shown.length ? "" : events.length ? "none of these" : "none yet");
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

// --- what has a line together: pure --------------------------------------------------------------------------------------

const numbers = new WeakMap(); // an event: its number
let numbered = 0;
function number(event) {
  if (!numbers.has(event)) numbers.set(event, (numbered += 1));
  return numbers.get(event);
}

// {key, state, time, make()} for each line of these events, the oldest first. It looks as before while its state is the same.
export function lines(events) {
  const told = runsOf(events);
  const calm = told.filter(({ run }) => run === null || run.count < FLAPPING).map(({ event }) => event);
  const flaps = overlapping([...new Set(told.map(({ run }) => run))].filter((run) => run !== null && run.count >= FLAPPING));
  const wide = together(calm, AT_ONCE, ({ constraint }) => constraint, ({ node }) => node);
  const few = wide.filter((group) => group.length < MANY).flat().sort((a, b) => a.time - b.time);
  const here = together(few, HERE_AT_ONCE, ({ node }) => node, ({ constraint }) => constraint);
  const isLine = (group) => group.length >= (group[0].kind === "unknown" ? UNKNOWN_HERE : MANY_HERE);
  const groups = [...wide.filter((group) => group.length >= MANY), ...here.flatMap((group) => (isLine(group) ? [group] : group.map((event) => [event])))];
  return [
    ...groups.map((group) => ({ key: `at once ${number(group[0])}`, state: String(group.length), time: group[0].time, make: () => line(group) })),
    ...flaps.map((runs) => {
      const latest = runs.map((run) => run.latest).reduce((a, b) => (b.time > a.time ? b : a));
      return { key: `flaps ${number(runs[0].first)}`, state: `${number(latest)} ${runs.length}`, time: latest.time, make: () => flapping(runs, latest) };
    }),
  ];
}

// Each event with its run: the turns of a constraint on a node, none of them long after the one before.
function runsOf(events) {
  const runs = new Map();
  return events.map((event) => {
    if (!TURNED.has(event.kind) || !event.constraint) return { event, run: null };
    const place = `${event.constraint}\n${event.node}`;
    let run = runs.get(place);
    if (run !== undefined && event.time - run.latest.time > CALM) run = undefined;
    if (run === undefined && event.kind === "unknown") return { event, run: null }; // a constraint is unknown until it is measured
    if (run === undefined) runs.set(place, (run = { first: event, latest: event, count: 0 }));
    run.count += 1;
    run.latest = event;
    return { event, run };
  });
}

// The runs of a constraint at the same time, together.
function overlapping(runs) {
  const found = [], latest = new Map();
  for (const run of [...runs].sort((a, b) => a.first.time - b.first.time)) {
    const group = latest.get(run.first.constraint);
    if (group?.some((each) => each.latest.time >= run.first.time)) {
      group.push(run);
      continue;
    }
    latest.set(run.first.constraint, [run]);
    found.push(latest.get(run.first.constraint));
  }
  return found;
}

// Events of a kind and a subject that happened at once in several places; the others alone.
function together(events, within, subjectOf, placeOf) {
  const found = [], latest = new Map();
  for (const event of events) {
    const key = `${event.kind}\n${subjectOf(event)}`;
    let group = latest.get(key);
    if (group === undefined || !JOINED.has(event.kind) || event.time - group[0].time > within || group.places.has(placeOf(event))) {
      group = Object.assign([], { places: new Set() });
      latest.set(key, group);
      found.push(group);
    }
    group.push(event);
    group.places.add(placeOf(event));
  }
  return found;
}

// --- a line ----------------------------------------------------------------------------------------------------------------

// Links to some of these, and the number of the others.
function named(kind, ids, most) {
  const links = ids.slice(0, most).flatMap((id, place) => [place ? ", " : "", subject(kind, id)]);
  return ids.length > most ? [...links, ` and ${plural(ids.length - most, "other", "others")}`] : links;
}

function flapping(runs, latest) {
  const bad = latest.kind === "violated";
  const nodes = runs.map((run) => run.first.node).filter(Boolean);
  const now = { violated: "violated now", satisfied: "satisfied now", unknown: "unknown now" }[latest.kind];
  const count = runs.reduce((sum, run) => sum + run.count, 0);
  const words = h("span", null, subject("constraint", latest.constraint), " flaps on ", nodes.length ? named("node", nodes, NAMED) : "…", `: ${count} turns since ${at(runs[0].first.time)}, ${now}`, runs.length > 1 ? [" on ", subject("node", latest.node)] : null, latest.detail ? h("small", null, latest.detail) : null);
  return h("li", { class: bad ? "bad" : "warn", "data-kind": "flapping" }, when(latest.time), h("i", { "aria-hidden": "true" }, "⇅"), words);
}

// Events of a kind that happened at once: of a constraint on several nodes, or of several constraints on a node; mostly it is one event.
function line(group) {
  const [event] = group;
  const [glyph, kind, words] = WORDS[event.kind] ?? ["•", "calm", event.kind];
  const constraints = [...new Set(group.map((each) => each.constraint).filter(Boolean))];
  const nodes = [...new Set(group.map((each) => each.node).filter(Boolean))];
  const several = constraints.length > 1 ? "{c} is " : nodes.length > 1 ? "{n} is " : null;
  const parts = (several === null ? words : words.replace(several, several.replace("is", "are"))).split(/(\{[bcn]\})/).flatMap((part) => {
    if (part === "{c}" && constraints.length) return named("constraint", constraints, 1);
    if (part === "{n}" && nodes.length) return named("node", nodes, NAMED);
    return part === "{b}" && event.budget ? event.budget : part.replace(/\{[bcn]\}/, "…");
  });
  const about = event.kind.startsWith("alert") && (event.constraint ? subject("constraint", event.constraint) : event.node && subject("node", event.node));
  const tile = event.tile ? ` ${event.room}/${event.tile}` : "";
  const detail = event.detail && nodes.length > 1 ? `on ${event.node}: ${event.detail}` : event.detail;
  return h(
    "li",
    { class: kind, "data-kind": event.kind },
    when(event.time),
    h("i", { "aria-hidden": "true" }, glyph),
    h("span", null, parts, about ? [" about ", about] : null, tile, detail ? h("small", null, detail) : null, event.actor ? h("small", null, `by ${event.actor} on ${event.by}`) : null),
  );
}
