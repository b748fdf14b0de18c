// The page of a constraint: what is so where since when, its definition or the two sides of a conflict, its course, who has it.

import { differences, inForce, inFull, requestOf, selectorOf } from "./definition.js";
import { Course } from "./course.js";
import { h } from "./dom.js";
import { ago, at, count, duration, measured, ofTime, percent, plural, shownFields, sinceWords, situation, span, stateClock } from "./format.js";
import { STATE_GLYPHS, STATE_WORDS } from "./model.js";
import { button, facts, link, more, MOST_LISTED, section } from "./parts.js";

export class ConstraintPage {
  #course = null;

  // `act`: {edit(id, dot), remove(id), confirm(question, act), written(id)}
  constructor(api, model, act) {
    Object.assign(this, { api, model, act });
  }

  async content(id) {
    const path = encodeURIComponent(id);
    if (this.#course?.id !== id) this.#course = new Course(id);
    const [explained, rows] = await Promise.all([this.api.get(`/v1/explain/${path}`), this.api.get(`/v1/overview?id=${path}`)]);
    this.model.putRows(rows, [id]);
    const row = this.model.rows.get(id);
    const series = row ? await this.api.get(`/v1/series/${path}`) : null;
    const box = h(
      "div",
      { class: "body" },
      row ? this.#lead(row, explained) : h("p", { class: "error" }, "It is not active."),
      row && this.model.mayOperate && !explained.conflict && h("div", { class: "buttons left" }, button("Edit", "edit", () => this.act.edit(id)), this.#removeButton(id)),
      ...(row && explained.conflict ? this.#conflict(id, explained) : inForce(explained).map(definition)),
      section(`Where${row?.data.violated_now ? `: violated on ${count(row.data.violated_now)} now` : ""}`, where(explained)),
      this.#course.show(series, row),
      row && section(`Time: held ${ofTime(row.data.held)} of the time`, timeBar(row.data), timeWords(row.data)),
      section("Recently violated, of the judgements", ...lately(explained)),
      explained.coverage && section(heardTitle(explained.coverage), coverage(explained.coverage)),
      section("History", history(explained)),
    );
    box.from = [explained, rows, series, this.model.mayOperate];
    box.drawn = () => this.#course.drawn();
    return box;
  }

  #removeButton(id) {
    return button("Remove…", "remove", () => this.act.remove(id), "danger quiet");
  }

  #lead({ data, state }, explained) {
    return h(
      "div",
      { class: "lead" },
      h("p", { class: "line" }, h("span", { class: `badge ${state}` }, `${STATE_GLYPHS[state]} ${STATE_WORDS[state]}`), h("span", { class: `severity ${data.severity}` }, data.severity), explained.conflict && h("span", { class: "conflict" }, "conflict")),
      data.longest.length > 0 && h("ul", { class: "pairs now" }, data.longest.map((each) => h("li", null, h("b", null, situation(each) || each.reason || each.state), h("small", null, `${sinceWords(each.since)} on `, link("node", each.node))))),
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
      timeBar(each),
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

function history({ definitions, removals }) {
  const added = definitions.map((each) => h("li", null, link("node", each.added_by), h("small", null, `added it ${each.added_at ? ago(each.added_at) : ""}${by(each)}${each.expired ? ", expired" : ""}`), h("code", null, each.dot)));
  const removed = removals.map((each) => h("li", null, link("node", each.by), h("small", null, `ended ${plural(each.ended.length, "definition", "definitions")}${each.known_since ? ` ${ago(each.known_since)}` : ""}${by(each)}`), h("code", null, each.dot)));
  return h("ul", { class: "pairs three" }, added, removed);
}

// Who caused a mutation, if the audit has it.
const by = ({ actor }) => (actor ? `, by ${actor}` : "");
