// The card beside the constraints: the map, the nodes, and a place each for budgets, alerts, the doctor and the counters.

import { byId, h, setAttribute, setText } from "./dom.js";
import { ago, at, count, duration, plural } from "./format.js";

const TABS = ["map", "nodes", "budgets", "alerts", "doctor", "counters"];
const MOST_HOLDERS = 12;
const FIRING_SHOWN = 3;

export class Panels {
  #looked = ""; // the tab that was shown last

  // `shown(tab)`: it is in sight now, and has to be fresh.
  constructor(api, model, address, shown) {
    Object.assign(this, { api, model, address, shown });
    for (const tab of TABS) byId("tabs").append(this.#tab(tab));
    byId("tabs").addEventListener("keydown", (event) => this.#pressed(event));
    byId("doctor-again").addEventListener("click", () => this.#diagnose());
    address.follow(() => this.#show());
    model.on("alerts", () => this.#alerts());
    model.on("budgets", () => this.#budgets());
  }

  get tab() {
    return TABS.includes(this.address.get("side")) ? this.address.get("side") : "map";
  }

  #tab(name) {
    const title = name[0].toUpperCase() + name.slice(1);
    return h("button", { type: "button", role: "tab", id: `tab-${name}`, "data-tab": name, "aria-controls": `panel-${name}`, click: () => this.address.set({ side: name }) }, h("span", null, title), h("b"));
  }

  #show() {
    const { tab } = this;
    if (tab === this.#looked) return;
    this.#looked = tab;
    for (const name of TABS) {
      const button = byId("tabs").querySelector(`[data-tab="${name}"]`);
      setAttribute(button, "aria-selected", name === tab);
      setAttribute(button, "tabindex", name === tab ? 0 : -1);
      document.getElementById(`panel-${name}`).hidden = name !== tab;
    }
    if (tab === "doctor") this.#diagnose();
    if (tab === "counters") this.#counters();
    this.shown(tab);
  }

  #pressed(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = TABS.indexOf(this.tab);
    const to = step ? TABS[(at + step + TABS.length) % TABS.length] : { Home: TABS[0], End: TABS.at(-1) }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.address.set({ side: to });
    byId("tabs").querySelector(`[data-tab="${to}"]`).focus();
  }

  #mark(tab, number, tone = "") {
    const mark = byId("tabs").querySelector(`[data-tab="${tab}"] b`);
    setText(mark, number ? count(number) : "");
    setAttribute(mark, "class", tone || null);
  }

  // --- budgets --------------------------------------------------------------------------------------------------------

  #budgets() {
    const { budgets } = this.model;
    this.#mark("budgets", budgets.length, budgets.some((each) => each.stranded || each.limits.length > 1) ? "warn" : "");
    const none = h("p", { class: "empty" }, "No budget is defined. ", h("code", null, "constraint-crdt budget add NAME --limit N"), " defines one.");
    replace(byId("budgets-list"), budgets.length ? budgets.map(budgetCard) : [none]);
  }

  // --- alerts ---------------------------------------------------------------------------------------------------------

  #alerts() {
    const { alerts, firing } = this.model;
    const line = (alert) => alertLine(this.model, alert);
    this.#mark("alerts", firing.length, "bad");
    const now = byId("alerts-now");
    now.hidden = !firing.length;
    const few = firing.slice(0, FIRING_SHOWN).flatMap((alert, index) => [index ? ", " : "", `${alert.rule} `, subjectOf(this.model, alert)]);
    const more = firing.length - FIRING_SHOWN;
    const all = h("button", { type: "button", class: "quiet", click: () => this.address.set({ side: "alerts" }) }, "Show");
    replace(now, [h("span", null, h("b", { class: "bad" }, `✕ ${plural(firing.length, "alert", "alerts")}: `), ...few, more > 0 ? ` and ${count(more)} more` : ""), all]);
    const pending = alerts.alerts.filter((each) => !each.firing);
    const rules = alerts.rules.map((rule) => h("li", null, h("span", { class: "id" }, rule.name), h("small", null, ruleWords(rule))));
    replace(byId("alerts-list"), [
      alerts.rules.length ? null : h("p", { class: "empty" }, "This node has no alerts: write some under [[alert]] in its settings file."),
      firing.length ? h("section", null, h("h3", null, "Firing"), h("ul", { class: "pairs" }, firing.map(line))) : null,
      pending.length ? h("section", null, h("h3", null, "About to fire"), h("ul", { class: "pairs" }, pending.map(line))) : null,
      rules.length ? h("section", null, h("h3", null, "Rules"), h("ul", { class: "pairs" }, rules)) : null,
      alerts.waiting ? h("p", { class: "note" }, `${plural(alerts.waiting, "message waits", "messages wait")} for webhooks that do not take them.`) : null,
      alerts.dropped ? h("p", { class: "note" }, `${plural(alerts.dropped, "message", "messages")} could not be delivered since the start.`) : null,
    ]);
  }

  // --- doctor ---------------------------------------------------------------------------------------------------------

  async #diagnose() {
    const button = byId("doctor-again");
    button.disabled = true;
    setText(byId("doctor-note"), "looking…");
    try {
      const { findings } = await this.api.get("/v1/diagnosis");
      const worst = ["fail", "warn", "ok"];
      findings.sort((a, b) => worst.indexOf(a.level) - worst.indexOf(b.level));
      const wrong = findings.filter((each) => each.level !== "ok").length;
      this.#mark("doctor", wrong, findings[0]?.level === "fail" ? "bad" : "warn");
      setText(byId("doctor-note"), wrong ? plural(wrong, "finding", "findings") : "nothing is wrong");
      replace(byId("doctor-list"), findings.map(finding));
    } catch (error) {
      if (error.status === undefined) throw error;
      setText(byId("doctor-note"), `${error.message}.`);
    } finally {
      button.disabled = false;
    }
  }

  // --- counters -------------------------------------------------------------------------------------------------------

  async #counters() {
    try {
      const counters = await this.api.get("/v1/counters");
      const line = (each) => h("li", null, h("span", { class: "id" }, each.name), h("b", null, count(each.value)), h("small", null, `up by ${count(each.increments)}, down by ${count(each.decrements)}, moved by ${plural(Object.keys(each.by_node).length, "node", "nodes")}`));
      replace(byId("counters-list"), counters.length ? [h("ul", { class: "pairs" }, counters.map(line))] : [h("p", { class: "empty" }, "No counter was moved yet.")]);
    } catch (error) {
      if (error.status === undefined) throw error; // else the banner says that the node is gone
    }
  }
}

// Leaves the focus where it is, if the element that had it comes again.
function replace(box, children) {
  const focused = box.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  box.replaceChildren(...children.filter(Boolean));
  if (focused) box.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
}

function budgetCard(budget) {
  const all = Math.max(budget.limit, budget.held + budget.free_here + budget.free_elsewhere + budget.stranded, 1);
  const parts = [["held", "held", budget.held], ["here", "free here", budget.free_here], ["elsewhere", "free elsewhere", budget.free_elsewhere], ["stranded", "stranded", budget.stranded]];
  const moving = all - parts.reduce((sum, [, , amount]) => sum + amount, 0);
  const bar = h("div", { class: "bar budget", "aria-hidden": "true" });
  for (const [kind, , amount] of parts) {
    const fill = h("i", { class: kind });
    fill.style.width = `${(100 * amount) / all}%`;
    bar.append(fill);
  }
  const holders = [...budget.holders].sort((a, b) => a.since - b.since);
  const line = (each) => h("li", null, h("span", null, each.holder || "a process", " on ", h("a", { href: `#/node/${encodeURIComponent(each.node)}` }, each.node)), h("small", null, `${each.amount > 1 ? `${count(each.amount)}, ` : ""}since ${at(each.since)} (${duration((Date.now() - each.since / 1e6) / 1000)})${each.until ? `, until ${at(each.until)}` : ""}`));
  const lost = budget.nodes.filter((each) => !each.live && each.share);
  return h(
    "article",
    { class: "budget-card", "data-budget": budget.name },
    h("h3", null, h("span", { class: "id" }, budget.name), ` ${count(budget.held)} of ${count(budget.limit)} held`),
    bar,
    h("ul", { class: "legend" }, parts.map(([kind, words, amount]) => h("li", null, h("i", { class: `swatch ${kind}` }), `${count(amount)} ${words}`)), moving > 0 ? h("li", null, h("i", { class: "swatch none" }), `${count(moving)} on their way between nodes`) : null),
    budget.waiting ? h("p", { class: "warn" }, `${plural(budget.waiting, "process waits", "processes wait")}.`) : null,
    budget.limits.length > 1 ? h("p", { class: "warn" }, `Limits set at once: ${budget.limits.join(", ")}. The lowest holds until one is set anew.`) : null,
    budget.waits_for.length ? h("p", { class: "warn" }, `Not in force yet: the word of ${budget.waits_for.join(", ")} is missing.`) : null,
    budget.stranded ? h("p", { class: "warn" }, lost.length ? `Stranded with ${lost.map((each) => `${each.node}${each.heard === null ? "" : ` (heard ${duration(each.heard)} ago)`}`).join(", ")}, until it is back or retired.` : "Some is stranded until its definition is in force.") : null,
    h("ul", { class: "pairs" }, holders.length ? holders.slice(0, MOST_HOLDERS).map(line) : h("li", { class: "note" }, "Nobody holds any."), holders.length > MOST_HOLDERS ? h("li", { class: "note" }, `and ${count(holders.length - MOST_HOLDERS)} more`) : null),
    h("p", { class: "note" }, budget.lease === null ? "Used up for good: what is not released does not come back." : `A holder that falls silent frees it after ${duration(budget.lease)}.`),
  );
}

function subjectOf(model, { subject }) {
  const kind = model.rows.has(subject) ? "constraint" : model.nodes.has(subject) ? "node" : null;
  return kind ? h("a", { href: `#/${kind}/${encodeURIComponent(subject)}` }, subject) : subject;
}

function alertLine(model, alert) {
  return h("li", { class: "alert", "data-rule": alert.rule }, h("span", null, h("b", { class: alert.firing ? "bad" : "warn" }, alert.firing ? "✕ " : "… ", alert.rule), " ", subjectOf(model, alert)), h("small", null, `${alert.firing ? "since" : "pending since"} ${at(alert.since)}, ${ago(alert.since)}`), alert.detail ? h("small", { class: "told" }, alert.detail) : null);
}

function ruleWords(rule) {
  const about = rule.constraint ?? rule.node ?? "all";
  return `${rule.kind}, ${about}${rule.above === null ? "" : `, above ${rule.above}`}${rule.above_share === null ? "" : `, above ${rule.above_share}`}${rule.lasts ? `, lasting ${duration(rule.lasts)}` : ""}${rule.to.length ? `, to ${rule.to.join(", ")}` : ""}`;
}

function finding(each) {
  const glyph = { fail: "✕", warn: "!", ok: "✓" }[each.level];
  const tone = { fail: "bad", warn: "warn", ok: "good" }[each.level];
  return h("li", { class: "finding", "data-level": each.level }, h("span", null, h("b", { class: tone }, `${glyph} ${each.check}`), " ", each.what), each.advice ? h("small", { class: "advice" }, each.advice) : null);
}
