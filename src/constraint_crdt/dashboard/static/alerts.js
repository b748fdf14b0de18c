// The alerts: those that fire on the first screen, all of them in their tab, with silences and acknowledgements.
//
// Rules: the first screen names the alerts that nobody looks after; those that are silenced or acknowledged are counted. A silence needs
// a reason and ends by itself.

import { announce, byId, h, replace, setAttribute, setText } from "./dom.js";
import { ago, at, count, duration, plural } from "./format.js";

const FIRING_SHOWN = 3;
const SILENCED = [["2 hours", 7200], ["30 minutes", 1800], ["8 hours", 28800], ["a day", 86400], ["a week", 604800]]; // s
const ACKNOWLEDGED = [["a day, at most", 86400], ["2 hours, at most", 7200], ["a week, at most", 604800]];

export class Alerts {
  #shown = "";

  // `act`: {mark(number, tone): beside the title of the tab, open(): bring the tab into sight, confirm, reason, moved(): silences are others now}
  constructor(api, model, act) {
    Object.assign(this, { api, model, act });
    model.on("alerts session rows nodes", () => this.model.alerts && this.#show());
  }

  #show() {
    const { alerts, silences, firing, mayOperate } = this.model;
    const seen = JSON.stringify([alerts, silences, mayOperate, Math.floor(Date.now() / 10000)]);
    if (seen === this.#shown) return;
    this.#shown = seen;
    const open = firing.filter((each) => !cared(each));
    this.act.mark(firing.length, open.length ? "bad" : "warn");
    this.#first(open, firing.length - open.length);
    const pending = alerts.alerts.filter((each) => !each.firing);
    const refused = Object.entries(alerts.refused ?? {});
    const list = (title, items) => items.length > 0 && h("section", null, h("h3", null, title), h("ul", { class: "pairs" }, items));
    replace(byId("alerts-list"), [
      alerts.rules.length || refused.length ? null : h("p", { class: "empty" }, "No alert rule. ", h("code", null, "constraint-crdt alerts add"), " defines some for the fleet, [[alert]] in the settings of a node others."),
      list("Firing", [...open, ...firing.filter(cared)].map((alert) => this.#line(alert))),
      list("About to fire", pending.map((alert) => this.#line(alert))),
      list("Silences and acknowledgements", silences.map((each) => this.#silence(each))),
      list("Rules", alerts.rules.map((rule) => this.#rule(rule))),
      list("Not evaluated here", refused.map(([name, why]) => h("li", null, h("span", { class: "id" }, name), h("small", { class: "warn" }, why)))),
      alerts.waiting ? h("p", { class: "note" }, `${plural(alerts.waiting, "message waits", "messages wait")} for webhooks that do not take them.`) : null,
      alerts.dropped ? h("p", { class: "note" }, `${plural(alerts.dropped, "message", "messages")} could not be delivered since the start.`) : null,
    ]);
  }

  // Above the table of constraints.
  #first(open, others) {
    const now = byId("alerts-now");
    now.hidden = !open.length && !others;
    const few = open.slice(0, FIRING_SHOWN).flatMap((alert, index) => [index ? ", " : "", `${alert.rule} `, subjectOf(this.model, alert)]);
    const more = open.length - FIRING_SHOWN;
    const cares = others ? `${open.length ? "; " : ""}${plural(others, "alert", "alerts")} silenced or acknowledged` : "";
    const all = h("button", { type: "button", class: "quiet", "data-focus": "show", click: () => this.act.open() }, "Show");
    setAttribute(now, "class", `alerts-now ${open.length ? "" : "calm"}`);
    replace(now, [h("span", null, open.length ? h("b", { class: "bad" }, `✕ ${plural(open.length, "alert", "alerts")}: `) : "", ...few, more > 0 ? ` and ${count(more)} more` : "", cares), all]);
  }

  #line(alert) {
    const key = `${alert.rule}/${alert.subject}`;
    const told = Object.entries(alert.told ?? {}).map(([place, node]) => `${place} by ${node}`);
    const state = alert.acknowledged !== null && alert.acknowledged !== undefined ? `acknowledged by ${alert.acknowledged || "somebody"}` : alert.silenced?.length ? "silenced" : "";
    const act = alert.firing && this.model.mayOperate;
    return h(
      "li",
      { class: "alert", "data-alert": key },
      h("span", null, h("b", { class: alert.firing && !state ? "bad" : "warn" }, alert.firing ? "✕ " : "… ", alert.rule), " ", subjectOf(this.model, alert), state ? ` ${state}` : ""),
      h("small", null, `${alert.firing ? "since" : "pending since"} ${at(alert.since)}, ${ago(alert.since)}`),
      alert.detail ? h("small", { class: "told" }, alert.detail) : null,
      told.length ? h("small", { class: "told" }, `told to ${told.join(", ")}`) : null,
      act && h("span", { class: "buttons left" }, !state && this.#button("Acknowledge…", `acknowledge ${key}`, () => this.#acknowledge(key)), this.#button("Silence…", `silence ${key}`, () => this.#silenceIt(alert.rule))),
    );
  }

  #silence(each) {
    const words = `${each.acknowledges ? "acknowledged" : "silenced"} by ${each.actor || each.node}, until ${at(each.until)} (${duration((each.until / 1e6 - Date.now()) / 1000)})`;
    const act = this.model.mayOperate && this.#button("End…", `end ${each.id}`, () => this.#end(each));
    return h("li", { class: "alert", "data-silence": each.id }, h("span", { class: "id" }, each.alert), h("small", null, words + (each.on ? `, on ${each.on}` : "")), each.why ? h("small", { class: "told" }, each.why) : null, act && h("span", { class: "buttons left" }, act));
  }

  #rule(rule) {
    const from = rule.of_fleet ? `of the fleet${rule.added_by ? `, by ${rule.added_by}` : ""}` : "from the settings";
    const act = this.model.mayOperate && this.#button("Silence…", `silence rule ${rule.name}`, () => this.#silenceIt(rule.name));
    return h(
      "li",
      { class: "alert" },
      h("span", { class: "id" }, rule.name),
      h("small", null, `${ruleWords(rule)}; ${from}`),
      rule.conflict ? h("small", { class: "told warn" }, "Several definitions were made at once; the latest counts until the next.") : null,
      rule.lacking?.length ? h("small", { class: "told warn" }, `No live node has the destination ${rule.lacking.join(", ")}.`) : null,
      act && h("span", { class: "buttons left" }, act),
    );
  }

  #button(words, focus, click) {
    return h("button", { type: "button", class: "quiet small", "data-focus": focus, click }, words);
  }

  #acknowledge(alert) {
    const lines = ["The others see that you look after it. It is told no more until it ends."];
    this.act.reason({ title: `Acknowledge ${alert}`, lines, lengths: ACKNOWLEDGED, needed: false, yes: "Acknowledge" }, async ({ why, for: length }) => {
      await this.api.send("POST", "/v1/alerts/acknowledge", { alert, why, for: length });
      announce(`${alert} is acknowledged`);
      this.act.moved();
    });
  }

  #silenceIt(alert) {
    const lines = ["They are evaluated on, and told to nobody, in the whole fleet. It ends by itself."];
    this.act.reason({ title: "Silence alerts", lines, fields: { alert, on: "" }, lengths: SILENCED, yes: "Silence" }, async (silence) => {
      await this.api.send("POST", "/v1/silences", silence);
      announce(`${silence.alert} is silenced`);
      this.act.moved();
    });
  }

  #end(each) {
    const lines = [`${each.alert}: ${each.why || "no reason was given"}. Its alerts are told again.`];
    this.act.confirm({ title: each.acknowledges ? "End this acknowledgement?" : "End this silence?", lines, yes: "End it", no: "Keep it" }, async () => {
      await this.api.send("DELETE", `/v1/silences/${encodeURIComponent(each.id)}`);
      this.act.moved();
    });
  }
}

// True if it is silenced, or somebody looks after it.
const cared = (alert) => (alert.silenced?.length ?? 0) > 0 || (alert.acknowledged !== null && alert.acknowledged !== undefined);

function subjectOf(model, { subject }) {
  const kind = model.rows.has(subject) ? "constraint" : model.nodes.has(subject) ? "node" : null;
  return kind ? h("a", { href: `#/${kind}/${encodeURIComponent(subject)}` }, subject) : subject;
}

function ruleWords(rule) {
  const about = rule.constraint ?? rule.node ?? rule.budget ?? "all";
  const limits = [rule.above !== null && `above ${rule.above}`, rule.above_share !== null && `above ${100 * rule.above_share} %`, rule.within && `within ${duration(rule.within)}`, rule.lasts > 0 && `lasting ${duration(rule.lasts)}`];
  return [rule.kind, about, rule.on && `on ${rule.on}`, ...limits, rule.to.length > 0 && `to ${rule.to.join(", ")}`].filter(Boolean).join(", ");
}
