// The page of a constraint: what is so where since when, its definition or the two sides of a conflict, its course, who has it.

import { differences, inForce, inFull, requestOf, selectorOf } from "./definition.js";
import { Changes } from "./changes.js";
import { Course } from "./course.js";
import { h } from "./dom.js";
import { ago, at, count, duration, measured, ofTime, percent, plural, shownFields, sinceWords, situation, span, stateClock } from "./format.js";
import { STATE_GLYPHS, STATE_WORDS } from "./model.js";
import { button, facts, link, more, MOST_LISTED, section } from "./parts.js";

const DISABLED = [["until it is enabled", ""], ["an hour", 3600], ["8 hours", 28800], ["a day", 86400], ["a week", 604800]]; // s

export class ConstraintPage {
  #course = null;
  #surroundings = new Surroundings();

  // `act`: {edit(id, dot), remove(id), confirm(question, act), reason(question, act), written(id)}
  constructor(api, model, act) {
    Object.assign(this, { api, model, act });
    this.changes = new Changes(api, model, act);
  }

  async content(id) {
    const path = encodeURIComponent(id);
    if (this.#course?.id !== id) this.#course = new Course(id);
    const [explained, rows] = await Promise.all([this.api.get(`/v1/explain/${path}`), this.api.get(`/v1/overview?id=${path}`)]);
    this.model.putRows(rows, [id]);
    const row = this.model.rows.get(id);
    const [series, around, changes] = await Promise.all([row ? this.api.get(`/v1/series/${path}`) : null, this.#surroundings.of(this.api, id, explained), this.changes.of(id, explained)]);
    return {
      from: [explained, rows, series, around, changes, this.model.mayOperate, this.model.alerts?.rules],
      build: () => this.#body(id, { explained, row, series, around, changes }),
      drawn: () => this.#course.drawn(series, row),
      kept: this.#course.box,
    };
  }

  #body(id, { explained, row, series, around, changes }) {
    const operate = this.model.mayOperate;
    const act = row && operate && !explained.conflict;
    return h(
      "div",
      { class: "body" },
      row ? this.#lead(row, explained) : h("p", { class: "error" }, "It is not active."),
      explained.disabled && this.#disabled(id, explained.disabled, operate),
      act && h("div", { class: "buttons left" }, button("Edit", "edit", () => this.act.edit(id)), this.changes.undoButton(id, changes), !explained.disabled && button("Disable…", "disable", () => this.#disable(id), "quiet"), this.#removeButton(id)),
      !row && operate && this.changes.undoButton(id, changes),
      ...(row && explained.conflict ? this.#conflict(id, explained) : inForce(explained).map(definition)),
      explained.fleet && h("p", { class: "note" }, `Judged on ${explained.fleet.basis}. Its counts are written by `, link("node", explained.fleet.counted_by), "."),
      section(`Where${row?.data.violated_now ? `: violated on ${count(row.data.violated_now)} now` : ""}`, where(explained)),
      explained.instances && instances(explained.instances),
      h("div", { "data-kept": true }),
      row && section(`Time on ${this.model.status?.node ?? "this node"}: held ${ofTime(row.data.held)} of it`, timeBar(row.data), timeWords(row.data)),
      section("Recently violated, of the judgements", ...lately(explained)),
      explained.coverage && section(heardTitle(explained.coverage), coverage(explained.coverage)),
      section("Reads, and is read by", reads(id, around, this.model)),
      section("History", this.changes.list(id, changes), h("details", null, h("summary", { "data-focus": "mutations" }, "Mutations"), mutations(explained))),
    );
  }

  #disabled(id, { by, actor, at: time, until, why, all }, operate) {
    const who = actor ? `${actor} on ${by}` : by;
    const words = `${all ? "All constraints are disabled" : "Disabled"} by ${who} ${ago(time)}${until ? `, until ${at(until)}` : ""}${why ? `: ${why}` : ""}. No node evaluates it.`;
    const enable = () =>
      this.act.confirm({ title: all ? "Enable all constraints?" : `Enable ${id}?`, lines: ["The nodes evaluate it again."], yes: "Enable" }, async () => {
        await this.api.send("POST", "/v1/enable", all ? { all } : { ids: [id] });
        this.act.written(id);
      });
    return h("div", { class: "lead" }, h("p", { class: "warn" }, words), operate && h("div", { class: "buttons left" }, button("Enable…", "enable", enable)));
  }

  #disable(id) {
    const lines = ["It is kept, and evaluated on no node of the fleet."];
    this.act.reason({ title: `Disable ${id}?`, lines, lengths: DISABLED, yes: "Disable" }, async ({ why, for: length }) => {
      await this.api.send("POST", "/v1/disable", { ids: [id], why, for: length });
      this.act.written(id);
    });
  }

  #removeButton(id) {
    return button("Remove…", "remove", () => this.act.remove(id), "danger quiet");
  }

  #lead({ data, state }, explained) {
    return h(
      "div",
      { class: "lead" },
      h("p", { class: "line" }, h("span", { class: `badge ${state}` }, `${STATE_GLYPHS[state]} ${STATE_WORDS[state]}`), h("span", { class: `severity ${data.severity}` }, data.severity), explained.conflict && h("span", { class: "conflict" }, "conflict")),
      data.longest.length > 0 && h("ul", { class: "pairs now" }, data.longest.map((each) => h("li", null, h("b", { class: each.state === "unknown" ? "warn" : "bad" }, situation(each) || each.reason || each.state), h("small", null, `${sinceWords(each.since)} on `, link("node", each.node))))),
      explained.disabled && h("p", { class: "error", id: "detail-disabled" }, disabledWords(explained.disabled)),
      data.about && h("p", null, data.about),
      here(data),
      !data.applies_here && h("p", { class: "note" }, `Only on nodes labelled ${selectorOf(data)}; this one is not.`),
      data.expires_at && h("p", { class: "note" }, `Ends ${at(data.expires_at)}.`),
    );
  }

  // Both sides, and what to do.
  #conflict(id, explained) {
    const sides = inForce(explained);
    const operate = this.model.mayOperate;
    const who = (each) => `${each.actor ? `${each.actor} on ` : ""}${each.added_by}`;
    const side = (each, index) =>
      h(
        "section",
        { class: "side", "data-dot": each.dot },
        h("h3", null, `${String.fromCharCode(65 + index)}: by `, link("node", each.added_by), `${each.actor ? ` (${each.actor})` : ""}${each.added_at ? `, ${ago(each.added_at)}` : ""} `, h("span", { class: `severity ${each.severity}` }, each.severity)),
        definition(each),
        each.about && h("p", { class: "note" }, each.about),
        each.expires_at && h("p", { class: "note" }, `Ends ${at(each.expires_at)}.`),
        operate && h("div", { class: "buttons left" }, button("Keep this one", `keep ${index}`, () => this.#keep(id, each, sides, who)), button("Edit it…", `edit ${index}`, () => this.act.edit(id, each.dot), "quiet")),
      );
    return [
      h("p", { class: "error" }, `${plural(sides.length, "definition", "definitions")} were given at the same time, on nodes that had not heard of each other. All are enforced until one is kept, or both.`),
      ...sides.map(side),
      operate && h("div", { class: "buttons left" }, sides.length === 2 && button("Keep both", "keep both", () => this.#keepBoth(id, sides)), this.#removeButton(id)),
    ];
  }

  async #keep(id, kept, sides, who) {
    const change = inFull({ ...requestOf(kept), id });
    const [effect] = await this.api.send("POST", "/v1/effects", { changes: [{ add: change }] }).catch(() => []);
    const loosens = effect?.needs_loosen && h("p", { class: "error", id: "confirm-loosens" }, `What ends is critical, and this loosens it: ${effect.parts.map((each) => each.text).join("; ")}.`);
    const ended = sides.filter((each) => each !== kept);
    const differs = (each) => {
      const lines = differences(requestOf(each), requestOf(kept)).map(({ title, before, after }) => h("div", null, h("dt", null, title), h("dd", null, h("del", null, before || "nothing"), " → ", h("ins", null, after || "nothing"))));
      return h("div", null, h("p", { class: "note" }, `What ${who(each)} said ends:`), h("dl", { class: "changes" }, lines));
    };
    this.act.confirm({ title: `Keep what ${who(kept)} said of ${id}?`, lines: [...ended.map(differs), loosens], yes: loosens ? "Keep this one, and loosen it" : "Keep this one" }, async () => {
      await this.api.send("POST", "/v1/constraints", { ...change, ...(loosens ? { loosen: true } : {}) });
      this.act.written(id);
    });
  }

  // Two constraints, each with its definition: exact whatever they say, and both at once or none. Nothing is loosened by both.
  #keepBoth(id, [first, second]) {
    let other = `${id}-2`;
    for (let number = 3; this.model.rows.has(other); number += 1) other = `${id}-${number}`;
    const line = (name, each) => h("li", null, h("span", { class: "id" }, name), h("code", null, each.when ?? "evaluated outside of the node"));
    this.act.confirm({ title: `Keep both as two constraints?`, lines: [h("ul", { class: "pairs" }, line(id, first), line(other, second))], yes: "Keep both" }, async () => {
      const changes = [[id, first], [other, second]].map(([name, each]) => ({ add: { ...inFull({ ...requestOf(each), id: name }), loosen: true } }));
      await this.api.send("POST", "/v1/batch", { changes });
      this.act.written(id);
      this.act.written(other);
    });
  }
}

// Who stopped it, since and until when, and why.
function disabledWords(disabled) {
  const by = `${disabled.actor ? `${disabled.actor} on ` : ""}${disabled.by}, ${ago(disabled.at)}`;
  return `Disabled${disabled.all ? ", with all others," : ""} by ${by}${disabled.until ? `, until ${at(disabled.until)}` : ""}: ${disabled.why}. No node evaluates it.`;
}

function definition(each) {
  const fields = Object.entries(shownFields(each));
  return h("div", null, h("pre", null, h("code", null, each.when ?? "evaluated outside of the node")), fields.length ? facts(fields) : "");
}

// The verdict state on the node that serves the page; with the reason of an unknown outcome.
function here(data) {
  if (data.state === null || data.state === "off" || data.state === "holds") return null;
  const reason = data.reason && `: ${data.reason}${data.by_default ? "; by default" : ""}`;
  return h("p", { class: "note", id: "detail-here" }, `Here: ${stateClock(data, data)}${reason}`);
}

// The time satisfied, violated and unknown as a bar.
function timeBar({ seconds }) {
  const all = seconds.satisfied + seconds.violated + seconds.unknown;
  const part = (kind) => {
    const fill = h("i", { class: kind });
    fill.style.width = `${all ? (100 * seconds[kind]) / all : 0}%`;
    return fill;
  };
  return h("span", { class: "bar time", "aria-hidden": "true" }, ["satisfied", "violated", "unknown"].map(part));
}

function timeWords({ seconds }) {
  return h("p", { class: "note" }, ["satisfied", "violated", "unknown"].map((kind) => `${duration(seconds[kind])} ${kind}`).join(", "));
}

function lately({ lately: rates }) {
  return rates.map((rate) => {
    const fill = h("i", { class: rate.violated_share ? "worse" : null });
    fill.style.width = `${100 * (rate.violated_share ?? 0)}%`;
    return h(
      "p",
      { class: "rate" },
      h("span", null, span(rate.half_life)),
      h("span", { class: "bar", "aria-hidden": "true" }, fill),
      h("b", null, percent(rate.violated_share)),
      h("small", null, `${rate.violated_per_minute.toFixed(rate.violated_per_minute < 10 ? 1 : 0)} a minute`),
    );
  });
}

function where({ violations, definitions }) {
  if (!violations.length) return h("p", { class: "note" }, "No node has judged it yet.");
  const rank = (each) => (each.violated ? 0 : each.state === "pending" ? 1 : each.state === "unknown" ? 2 : each.violated_share ? 3 : 4);
  const sorted = [...violations].sort((a, b) => rank(a) - rank(b) || b.violations - a.violations);
  const line = (each) => {
    const untold = each.violated ? "violated" : each.violated === false ? "holds" : "not known now";
    const now = each.state === null ? untold : stateClock(each, definitions[0]);
    const told = [measured(each), each.reason, each.by_default && "by default"].filter(Boolean).join("; ");
    const held = each.held === null ? "" : `; held ${ofTime(each.held)} of the time`;
    const counts = `${count(each.violations)} of ${count(each.satisfied + each.violations)} judgements violated${held}`;
    return h(
      "li",
      { "data-node": each.node },
      link("node", each.node),
      h("small", { class: each.violated ? "bad" : "" }, each.live ? now : `${now}, not live`),
      told && h("small", { class: "told" }, told),
      each.seconds.satisfied + each.seconds.violated + each.seconds.unknown > 0 && timeBar(each),
      h("small", null, counts),
    );
  };
  return h("ul", { class: "pairs three" }, sorted.slice(0, MOST_LISTED).map(line), more(sorted.length));
}

function heardTitle({ have, lack, unknown }) {
  return `Coverage: ${count(have)} of ${count(have + lack + unknown)}`;
}

function coverage({ nodes, lack, unknown }) {
  if (!lack && !unknown) return h("p", { class: "note" }, "Every node has shown that it has it.");
  const waiting = nodes.filter((each) => each.holds !== true);
  const line = (each) => {
    const words = each.holds === null ? "no evidence of what it has" : each.since ? `has not heard, for ${duration(Date.now() / 1000 - each.since / 1e9)}` : "has not heard";
    return h("li", null, link("node", each.node), h("small", { class: each.holds === false ? "warn" : "" }, each.live ? words : `${words}; not live`));
  };
  return h("ul", { class: "pairs" }, waiting.slice(0, MOST_LISTED).map(line), more(waiting.length));
}

function mutations({ definitions, removals }) {
  const added = definitions.map((each) => h("li", null, link("node", each.added_by), h("small", null, `added it ${each.added_at ? ago(each.added_at) : ""}${by(each)}${each.expired ? ", expired" : ""}`), h("code", null, each.dot)));
  const removed = removals.map((each) => h("li", null, link("node", each.by), h("small", null, `ended ${plural(each.ended.length, "definition", "definitions")}${each.known_since ? ` ${ago(each.known_since)}` : ""}${by(each)}`), h("code", null, each.dot)));
  return h("ul", { class: "pairs three" }, added, removed);
}

// Who caused a mutation, if the audit has it.
const by = ({ actor }) => (actor ? `, by ${actor}` : "");

// --- what it reads, and what reads it ---------------------------------------------------------------------------------

const SURVEY_EVERY = 10000; // ms

// The variables of a constraint with the nodes that measure them, the parameters that it reads, and the actions of this node.
class Surroundings {
  #of = { id: null, when: "", at: 0, found: null };

  async of(api, id, explained) {
    const expressions = [...new Set(inForce(explained).map((each) => each.when).filter(Boolean))];
    const when = JSON.stringify(expressions);
    if (this.#of.id === id && this.#of.when === when && Date.now() - this.#of.at < SURVEY_EVERY) return this.#of.found;
    const { scope } = inForce(explained)[0] ?? {};
    const asked = expressions.map((each) => api.send("POST", "/v1/expressions", scope === "fleet" ? { when: each, scope } : { when: each }));
    const [parameters, actions, ...read] = await Promise.all([api.get("/v1/parameters"), api.get("/v1/actions"), ...asked]);
    const settings = parameters.filter((each) => each.constraints.includes(id));
    const names = [...new Set(read.flatMap((each) => each.variables))].filter((name) => !name.startsWith("param.") && name !== "nodes");
    const measured = await Promise.all(names.map((name) => api.get(`/v1/variables?name=${encodeURIComponent(name)}&limit=200`)));
    const variables = names.map((name, index) => ({ name, nodes: [...new Set(measured[index].map((each) => each.node))] }));
    const found = { variables, parameters: settings, actions: actions.actions.filter((each) => isMeant(each.constraint, id)) };
    this.#of = { id, when, at: Date.now(), found };
    return found;
  }
}

// True if a pattern with * and ? means this id; without a pattern all are meant.
function isMeant(pattern, id) {
  if (pattern === null || pattern === undefined) return true;
  const parts = [...pattern].map((letter) => (letter === "*" ? ".*" : letter === "?" ? "." : letter.replace(/[\\^$.|+()[\]{}]/g, "\\$&")));
  return new RegExp(`^${parts.join("")}$`, "su").test(id);
}

function reads(id, { variables, parameters, actions }, model) {
  const rules = (model.alerts?.rules ?? []).filter((rule) => (rule.constraint !== null || (rule.node === null && rule.budget === null && rule.kind === "rate")) && isMeant(rule.constraint, id));
  const some = (nodes) => [...nodes.slice(0, 6).flatMap((node, index) => [index ? ", " : "", link("node", node)]), nodes.length > 6 ? ` and ${count(nodes.length - 6)} more` : ""];
  const items = [
    ...variables.map(({ name, nodes }) => h("li", null, h("span", null, "variable ", h("span", { class: "id" }, name)), nodes.length ? h("small", null, `measured on ${plural(nodes.length, "node", "nodes")}: `, some(nodes)) : h("small", { class: "warn" }, "no node measures it"))),
    ...parameters.map((each) => h("li", null, h("span", null, "parameter ", h("span", { class: "id" }, each.name)), h("small", null, each.value === null ? each.reason || "not set here" : `${each.value} here`))),
    ...rules.map((rule) => h("li", null, h("span", null, "alert ", h("a", { href: "#/?side=alerts", "data-focus": `rule ${rule.name}` }, rule.name)), h("small", null, `${rule.kind}, ${rule.constraint ?? "all"}`))),
    ...actions.map((each) => h("li", null, h("span", null, "action ", h("span", { class: "id" }, each.name)), h("small", null, `${each.turns.join(", ")}: ${each.way} ${each.to}`))),
  ];
  return items.length ? h("ul", { class: "pairs" }, items) : h("p", { class: "note" }, "No variable, parameter, alert or action, as far as this node knows.");
}

// The instances on this node, the worst first.
function instances({ label, total, violated, unknown, worst }) {
  const line = (each) => h("li", null, h("span", { class: "id" }, each.instance || "(none)"), h("small", { class: each.state === "violated" || each.state === "clearing" ? "bad" : "" }, `${each.state} ${sinceWords(each.since)}`), h("small", { class: "told" }, situation(each) || each.reason));
  return section(`By ${label}, here: ${count(violated)} violated, ${count(unknown)} unknown of ${count(total)}`, h("ul", { class: "pairs" }, worst.slice(0, MOST_LISTED).map(line), more(worst.length)));
}
