// What this page knows of the fleet, and what it makes of it. It asks nobody: `refreshing` brings what is new, views listen.
//
// Rules: a row, once known, stays the same object, so that whoever holds it sees it move. Listeners are told what moved ("status",
// "nodes", "rows", "events", "connection", "session") and read the rest here.

import { selectorOf } from "./definition.js";
import { situation } from "./format.js";

const MOST_EVENTS = 500;
const FLAPPING = 3; // violations of a constraint on a node
const FLAPPING_IN = 600; // s
const MOST_TURNS = 4000; // told apart
const TURN_KINDS = { violated: "violated", holds: "satisfied", unknown: "unknown" };
const MOST_SAMPLES = 48;
const SAMPLE_EVERY = 2000;
const LEFT = 0.05; // of evaluations: less than this left counts as none lately

// From the most to the least urgent. A conflict comes behind what is unknown.
export const STATES = ["violated", "undecided", "lately", "audit", "holding", "idle", "disabled"];
export const SEVERITIES = ["critical", "warning", "info"];
const RANKS = { violated: 0, undecided: 1, conflict: 2, lately: 3, audit: 4, holding: 5, idle: 6, disabled: 7 };
export const STATE_WORDS = {
  violated: "Violated",
  lately: "Violated recently",
  audit: "Violated, audit",
  undecided: "Unknown",
  holding: "Holds",
  idle: "Not judged",
  disabled: "Disabled",
};
export const STATE_GLYPHS = { violated: "✕", lately: "!", audit: "○", undecided: "?", holding: "✓", idle: "–", disabled: "∥" };

export class Model {
  status = null;
  nodes = new Map();
  lately = {};
  rows = new Map();
  total = 0;
  complete = false; // every row was looked at once
  urgentKnown = false; // so was every one that is violated or unknown
  shape = 0; // moves when a row comes, goes, or is in another state
  events = [];
  connection = { connected: false, since: null, next: null, why: "" };
  alerts = null; // what the node's alerts found; null: not known yet
  silences = []; // and acknowledgements
  budgets = [];
  flapping = new Map(); // constraint: violations on a node in the last minutes
  session = null; // who is signed in, and may do what; null: not known yet
  #listeners = new Map();
  #turns = new Set(); // those seen, as "constraint\nnode\nstate\nsince"
  #ledTo = new Map(); // "constraint\nnode": the kind of the last one

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

  setAlerts([report, silences]) {
    this.alerts = report;
    this.silences = silences;
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

  // Of the events of this node and the turns told by others the latest, by time.
  addEvents(events) {
    const [newest] = this.events;
    const late = newest !== undefined && events.some((event) => event.time < newest.time);
    this.events = [...events.reverse(), ...this.events];
    if (late || newest === undefined) this.events.sort((a, b) => b.time - a.time);
    this.events.length = Math.min(this.events.length, MOST_EVENTS);
    this.#countTurns();
    this.#tell("events");
  }

  // The constraints that were violated again and again lately, with how often on the node with the most violations.
  #countTurns() {
    const since = Date.now() * 1e6 - FLAPPING_IN * 1e9;
    const times = new Map();
    for (const { kind, constraint, node, time } of this.events) {
      if (time < since) break;
      if (kind === "violated" && constraint) times.set(`${constraint}\n${node}`, (times.get(`${constraint}\n${node}`) ?? 0) + 1);
    }
    this.flapping.clear();
    for (const [place, number] of times) {
      const [constraint] = place.split("\n", 1);
      if (number >= FLAPPING) this.flapping.set(constraint, Math.max(number, this.flapping.get(constraint) ?? 0));
    }
  }

  // The latest turns of all nodes. This node has events of its own violations, so of those only what is unknown is news.
  setTurns(turns) {
    const fresh = [];
    for (const { constraint, node, state, since, ...told } of turns) {
      const place = `${constraint}\n${node}`;
      const key = `${place}\n${state}\n${since}`;
      if (this.#turns.has(key)) continue;
      this.#turns.add(key);
      const kind = TURN_KINDS[state];
      if (kind === undefined) continue;
      const before = this.#ledTo.get(place);
      this.#ledTo.set(place, kind);
      const own = node === this.status?.node;
      if ((own && kind !== "unknown") || (kind === "satisfied" && (before === undefined || before === kind))) continue;
      fresh.push({ kind, constraint, node, time: since, detail: situation(told) || told.reason });
    }
    for (const known of [this.#turns, this.#ledTo]) while (known.size > MOST_TURNS) known.delete(known.keys().next().value);
    if (fresh.length) this.addEvents(fresh);
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
    this.since = data.violated_now ? data.violated_since : data.longest[0]?.since ?? data.since ?? Infinity;
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

// A constraint of mode audit is judged, and nobody is told: its violations are not among those to see to.
function stateOf({ verdict, state, mode, violated_now: now, violated_on: on, unknown_now: unknown, lately }) {
  if (state === "disabled") return "disabled";
  if (now > 0) return mode === "audit" ? "audit" : "violated";
  if (unknown > 0) return "undecided";
  if (on > 0 && mode !== "audit") return "lately";
  if (verdict === "satisfied" || lately[0][0] + lately[0][1] >= LEFT) return "holding";
  return verdict === "unknown" ? "undecided" : "idle";
}

function share([satisfied, violated]) {
  return satisfied + violated < LEFT ? null : violated / (satisfied + violated);
}
