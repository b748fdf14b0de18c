// What this page knows of the fleet, and what it makes of it. It asks nobody: `refreshing` brings what is new, views listen.
//
// Rules: a row, once known, stays the same object, so that whoever holds it sees it move. Listeners are told what moved ("status",
// "nodes", "rows", "events", "connection", "session") and read the rest here.

import { selectorOf } from "./definition.js";

const MOST_EVENTS = 500;
const MOST_SAMPLES = 48;
const SAMPLE_EVERY = 2000;
const LEFT = 0.05; // of evaluations: less than this left counts as none lately

// From the most to the least urgent. A conflict comes behind what is unknown.
export const STATES = ["violated", "undecided", "lately", "holding", "idle"];
export const SEVERITIES = ["critical", "warning", "info"];
const RANKS = { violated: 0, undecided: 1, conflict: 2, lately: 3, holding: 4, idle: 5 };
export const STATE_WORDS = {
  violated: "Violated",
  lately: "Violated recently",
  undecided: "Unknown",
  holding: "Holds",
  idle: "Not judged",
};
export const STATE_GLYPHS = { violated: "✕", lately: "!", undecided: "?", holding: "✓", idle: "–" };

export class Model {
  status = null;
  nodes = new Map();
  lately = {};
  rows = new Map();
  total = 0;
  complete = false; // every row was looked at once
  shape = 0; // moves when a row comes, goes, or is in another state
  events = [];
  connection = { connected: false, since: null, next: null, why: "" };
  alerts = null; // what the node's alerts found; null: not known yet
  budgets = [];
  session = null; // who is signed in, and may do what; null: not known yet
  #listeners = new Map();

  on(kinds, listener) {
    for (const kind of kinds.split(" ")) this.#listeners.set(kind, [...(this.#listeners.get(kind) ?? []), listener]);
  }

  #tell(kind) {
    for (const listener of this.#listeners.get(kind) ?? []) listener(kind);
  }

  setConnection(connection) {
    this.connection = connection;
    this.#tell("connection");
  }

  setSession(session) {
    this.session = session;
    this.#tell("session");
  }

  // True if whoever is signed in may change constraints on this node.
  get mayOperate() {
    return this.session?.may === "operate";
  }

  setStatus(status) {
    this.status = status;
    this.#tell("status");
  }

  setNodes(nodes) {
    this.nodes = new Map(nodes.map((node) => [node.node, node]));
    this.#tell("nodes");
  }

  setLately(report) {
    this.lately = report.by_node;
    this.#tell("nodes");
  }

  setAlerts(report) {
    this.alerts = report;
    this.#tell("alerts");
  }

  // Alerts that fire now, the longest first.
  get firing() {
    return (this.alerts?.alerts ?? []).filter((each) => each.firing).sort((a, b) => a.since - b.since);
  }

  setBudgets(reports) {
    this.budgets = reports;
    this.#tell("budgets");
  }

  // Rows that were asked for; of `asked`, what is not among them is gone.
  putRows(report, asked = []) {
    const now = Date.now();
    this.total = report.total;
    for (const data of report.constraints) this.#put(data, now);
    const found = new Set(report.constraints.map((data) => data.id));
    for (const id of asked) if (!found.has(id) && this.rows.delete(id)) this.shape += 1;
    this.#tell("rows");
  }

  // All rows were looked at since `began`: what was not seen is not there.
  dropUnseen(began) {
    this.complete = true;
    for (const [id, row] of this.rows) if (row.looked < began && this.rows.delete(id)) this.shape += 1;
    this.#tell("rows");
  }

  #put(data, now) {
    let row = this.rows.get(data.id);
    if (row === undefined) {
      row = new Row(data, now);
      this.rows.set(data.id, row);
      this.shape += 1;
    }
    if (row.take(data, now)) this.shape += 1;
  }

  addEvents(events) {
    this.events = [...events.reverse(), ...this.events].slice(0, MOST_EVENTS);
    this.#tell("events");
  }

  // How many constraints are in which state, and of which severity.
  tally() {
    const counts = Object.fromEntries([...STATES, ...SEVERITIES].map((each) => [each, 0]));
    let conflicts = 0;
    for (const row of this.rows.values()) {
      counts[row.state] += 1;
      counts[row.data.severity] += 1;
      conflicts += row.data.definitions > 1;
    }
    return { ...counts, conflicts };
  }

  // The nodes that a search means: by name, or by a label.
  findNodes(words, most) {
    const found = [];
    for (const node of words.length ? this.nodes.values() : []) {
      const text = [node.node, ...Object.entries(node.labels).map(([key, value]) => `${key}=${value}`)].join("\n").toLowerCase();
      if (words.every((word) => text.includes(word)) && found.push(node) >= most) break;
    }
    return found;
  }

  // The share of a node's evaluations that held lately; null if there were none.
  held(name) {
    const [satisfied, violated] = this.lately[name] ?? [0, 0];
    return satisfied + violated < LEFT ? null : satisfied / (satisfied + violated);
  }
}

// One constraint, with the rate of its violations as this page saw it.
class Row {
  samples = [];
  #sampledAt = 0;

  constructor(data, now) {
    this.id = data.id;
    this.data = data;
    this.looked = now;
    this.found = data.id.toLowerCase();
    this.covered = null;
    // What was before this page was opened: the rates at the longer half-lives.
    for (const pair of [...data.lately].reverse()) this.samples.push(share(pair) ?? 0);
  }

  // True if it is in another state than before.
  take(data, now) {
    const before = this.#shape();
    this.data = data;
    this.share = share(data.lately[0]); // violated lately; null if nobody evaluated it
    this.state = stateOf(data);
    const conflict = data.definitions > 1;
    this.urgency = Math.min(RANKS[this.state], conflict ? RANKS.conflict : Infinity) * 4 + SEVERITIES.indexOf(data.severity);
    this.since = this.state === "violated" ? data.violated_since : data.longest[0]?.since ?? data.since ?? Infinity;
    this.looked = now;
    this.covered = data.covered ?? this.covered;
    const labels = selectorOf(data);
    const where = [data.added_by, ...data.worst, ...data.longest.map((each) => each.node)];
    this.found = [data.id, data.when ?? "", data.about ?? "", data.severity, conflict ? "conflict" : "", labels, data.mode, ...where].join("\n").toLowerCase();
    const sample = this.share ?? 0;
    if (now - this.#sampledAt >= SAMPLE_EVERY) {
      this.#sampledAt = now;
      this.samples.push(sample);
      if (this.samples.length > MOST_SAMPLES) this.samples.shift();
    } else {
      this.samples[this.samples.length - 1] = sample;
    }
    return before !== this.#shape();
  }

  #shape() {
    return `${this.urgency} ${this.since} ${this.data.violated_on}`;
  }
}

function stateOf({ verdict, violated_now: now, violated_on: on, unknown_now: unknown, lately }) {
  if (now > 0) return "violated";
  if (unknown > 0) return "undecided";
  if (on > 0) return "lately";
  if (verdict === "satisfied" || lately[0][0] + lately[0][1] >= LEFT) return "holding";
  return verdict === "unknown" ? "undecided" : "idle";
}

function share([satisfied, violated]) {
  return satisfied + violated < LEFT ? null : violated / (satisfied + violated);
}
