// The page of a node: what is violated there, what it measures, how it stands to the node that serves the page, and how to retire it.

import { labelText } from "./definition.js";
import { h } from "./dom.js";
import { linkWords } from "./fleet.js";
import { ago, at, count, duration, percent, plural, sinceWords, situation } from "./format.js";
import { button, facts, link, more, MOST_LISTED, section } from "./parts.js";

const ALERT_KINDS = new Set(["alert", "alert resolved"]);
const MOST_ALERTS = 20;

export class NodePage {
  // `act`: {confirm(question, act), moved()}
  constructor(api, model, act) {
    Object.assign(this, { api, model, act });
  }

  async content(name) {
    const node = this.model.nodes.get(name);
    if (!node) return { from: null, build: () => h("p", { class: "error" }, "No node of this name is known here.") };
    const path = encodeURIComponent(name);
    const [urgent, variables, readings] = await Promise.all([
      this.api.get(`/v1/urgent?limit=200&node=${path}`),
      this.#optional(`/v1/variables?node=${path}&limit=200`, []),
      this.#optional(`/v1/readings?node=${path}&limit=200`, { readings: [] }),
    ]);
    const own = name === this.model.status?.node;
    const measured = measurements(variables, readings.readings);
    const { heard, staleness, ...standing } = node.convergence ?? {};
    return {
      from: [own && this.#told()[0]?.time, { ...node, convergence: standing, measured: null, uptime: null }, urgent, measured.map(({ age, ...each }) => each), this.model.mayOperate],
      build: () => this.#body(name, node, { own, urgent, measured }),
    };
  }

  #body(name, node, { own, urgent, measured }) {
    return h(
      "div",
      { class: "body" },
      h("p", { class: "line" }, h("span", { class: `badge ${node.live ? "holding" : "idle"}` }, node.live ? "✓ Live" : "– Not live"), h("span", null, own ? "this node" : linkWords(node))),
      section("Violated or unknown there now", violations(urgent)),
      section(`Measures ${plural(measured.length, "variable", "variables")}`, readingList(measured, own)),
      section("About it", this.#about(node, own)),
      own ? section("Alerts that it told of", this.#alerts()) : "",
      !own && !node.retired && this.model.mayOperate ? h("div", { class: "buttons left" }, button("Retire…", "retire", () => this.#retire(name), "danger quiet")) : "",
    );
  }

  // A node that does not tell it has none.
  async #optional(path, none) {
    try {
      return await this.api.get(path);
    } catch (error) {
      if (error.status !== 404) throw error;
      return none;
    }
  }

  #about(node, own) {
    const { convergence: peer, measured: way } = node;
    const uptime = own ? this.model.status.uptime : node.uptime;
    const addresses = node.endpoints.length ? h("span", { class: "addresses" }, node.endpoints.map((each) => h("code", null, each))) : null;
    return facts([
      ["Addresses", addresses],
      ["Labels", labelText(node.labels) || null],
      ["Site", node.site || null],
      ["Software", node.software || null],
      ["Uptime", uptime === null || uptime === undefined ? null : duration(uptime)],
      ["Fault", node.trouble || (own && this.model.status.trouble) || null],
      ["Clock", node.clock_offset === null ? (own ? "the clock that this page goes by" : "not heard lately") : `${Math.abs(node.clock_offset).toFixed(2)} s ${node.clock_offset < 0 ? "behind" : "ahead"}`],
      ["Position", node.position ? node.position.join(", ") : "none"],
      ["State", peer ? `${peer.state}${peer.since ? ` since ${at(peer.since)}` : ""}${peer.through ? `, through ${peer.through}` : ""}` : null],
      ["Behind us by", peer ? (peer.behind === null ? "not known" : plural(peer.behind, "change", "changes")) : null],
      ["Ahead of us by", peer ? (peer.ahead === null ? "not known" : plural(peer.ahead, "change", "changes")) : null],
      ["Last heard", peer ? (peer.heard ? ago(peer.heard) : "not since this node started") : null],
      ["Link", node.link ? linkText(node.link, way) : null],
      ["Judgements satisfied, recently", percent(this.model.held(node.node))],
      ["Judgements violated, ever", `${count(node.violations)} of ${count(node.satisfied + node.violations)}`],
    ]);
  }

  #told() {
    return this.model.events.filter((each) => ALERT_KINDS.has(each.kind)).slice(0, MOST_ALERTS);
  }

  #alerts() {
    const told = this.#told();
    if (!told.length) return h("p", { class: "note" }, "None lately.");
    return h("ul", { class: "pairs" }, told.map((each) => h("li", null, h("span", { class: each.kind === "alert" ? "bad" : "" }, `${each.kind === "alert" ? "✕" : "✓"} ${each.detail}`, each.constraint || each.node ? " " : "", each.constraint ? link("constraint", each.constraint) : each.node ? link("node", each.node) : ""), h("small", null, at(each.time)))));
  }

  // Says first what it means, as the node knows it.
  async #retire(name) {
    let found;
    try {
      found = await this.api.send("POST", "/v1/retire", { node: name, dry_run: true });
    } catch (error) {
      if (error.status === undefined) throw error;
      this.act.confirm({ title: `Retire ${name}?`, lines: [`It cannot be retired: ${error.message}.`], yes: "Try it", danger: true }, () => this.api.send("POST", "/v1/retire", { node: name }));
      return;
    }
    const lines = [
      "It ends for good: its return is refused, its name is not to be used again, and what it holds of budgets goes to others.",
      found.live ? `${name} is live. Retiring it is refused while it is: stop it first.` : null,
      `Its counts stay: ${count(found.satisfied)} satisfied, ${count(found.violations)} violated.`,
      found.missing.length ? `Not yet with all that it wrote: ${found.missing.join(", ")}.` : null,
    ];
    this.act.confirm({ title: `Retire ${name}?`, lines, yes: "Retire it", no: "Keep it", danger: true }, async () => {
      await this.api.send("POST", "/v1/retire", { node: name });
      this.act.moved();
    });
  }
}

function violations(report) {
  const { constraints } = report;
  if (!constraints.length) return h("p", { class: "note" }, "None.");
  const worst = ["critical", "warning", "info"];
  const audit = (each) => each.mode === "audit";
  constraints.sort((a, b) => audit(a) - audit(b) || b.violated_now - a.violated_now || worst.indexOf(a.severity) - worst.indexOf(b.severity) || (a.longest[0]?.since ?? 0) - (b.longest[0]?.since ?? 0));
  const line = (each) => {
    const [verdict] = each.longest;
    const tone = audit(each) ? "" : each.violated_now ? "bad" : "warn";
    const what = verdict ? situation(verdict) || verdict.reason : "";
    return h("li", null, h("span", null, link("constraint", each.id), " ", h("span", { class: `severity ${each.severity}` }, each.severity)), h("small", { class: tone }, verdict ? sinceWords(verdict.since) : ""), h("small", { class: "told" }, `${audit(each) ? "audit: " : ""}${each.violated_now ? "" : "unknown: "}${what}`));
  };
  return h("ul", { class: "pairs" }, constraints.slice(0, MOST_LISTED).map(line), more(report.next === null ? constraints.length : MOST_LISTED + constraints.length));
}

// What a node measures: of the node that answers with all values, of another one with those that it shares.
function measurements(variables, readings) {
  const shared = new Map(readings.map((each) => [each.variable, each]));
  const found = variables.map((each) => {
    const reading = shared.get(each.name);
    shared.delete(each.name);
    return { name: each.name, kind: each.kind, value: each.value ?? (reading ? String(reading.value) : null), age: each.age ?? reading?.age ?? null, aged: each.aged ?? reading?.aged ?? false, readers: each.readers };
  });
  for (const each of shared.values()) found.push({ name: each.variable, kind: typeof each.value, value: String(each.value), age: each.age, aged: each.aged, readers: null });
  return found;
}

function readingList(found, own) {
  if (!found.length) return h("p", { class: "note" }, "Nothing, as far as is known here.");
  const line = (each) => {
    const age = each.age === null ? each.kind : `${duration(each.age)} old${each.aged ? ", counts as missing" : ""}`;
    return h("li", null, h("span", { class: "id" }, each.name), h("b", null, each.value === null ? "" : short(each.value)), h("small", { class: each.aged ? "warn" : "" }, age), each.readers === 0 ? h("small", null, "no constraint reads it") : null);
  };
  const hidden = !own && found.some((each) => each.value === null);
  return h("div", null, h("ul", { class: "pairs measured" }, found.slice(0, MOST_LISTED).map(line), more(found.length)), hidden ? h("p", { class: "note" }, "Of another node only the values that it shares are known here.") : null);
}

// A number to six digits; other values as they are.
function short(value) {
  const number = Number(value);
  return value.trim() === "" || Number.isNaN(number) || value.length < 9 ? value : String(Number(number.toPrecision(6)));
}

function linkText(link, way) {
  const rates = [way?.rate_out, way?.rate_in].filter((rate) => rate !== null && rate !== undefined);
  const parts = [link];
  if (way?.round_trip) parts.push(`${(way.round_trip * 1000).toFixed(1)} ms`);
  if (rates.length) parts.push(`${count(Math.min(...rates) / 1000)} kB/s`);
  if (way?.loss > 0.01) parts.push(`${percent(way.loss)} unanswered`);
  return parts.join(", ") + (way?.slow ? ": slow" : "");
}
