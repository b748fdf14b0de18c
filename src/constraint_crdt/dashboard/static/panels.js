// The card beside the constraints: the map, the nodes, and a place each for budgets, alerts, the doctor, counters and tiles.

import { byId, coded, h, replace, setAttribute, setText } from "./dom.js";
import { ago, at, count, duration, plural } from "./format.js";

const TABS = ["map", "nodes", "budgets", "alerts", "doctor", "counters", "tiles"];
const COUNTED_EVERY = 5000; // ms
const DIAGNOSED_EVERY = 60000; // ms, for the number beside the tab
const LOOKED_EVERY = 2000; // ms
const MOST_HOLDERS = 12;
const MOST_ROOMS = 200;
const MOST_TILES = 60;
const MOST_LETTERS = 400; // of a tile

export class Panels {
  #looked = ""; // the tab that was shown last
  #diagnosedAt = 0;
  #diagnosed = null; // the concerns of the node at that time

  // `shown(tab)`: it is in sight now, and has to be fresh.
  constructor(api, model, address, shown) {
    Object.assign(this, { api, model, address, shown });
    for (const tab of TABS) byId("tabs").append(this.#tab(tab));
    byId("tabs").addEventListener("keydown", (event) => this.#pressed(event));
    byId("doctor-again").addEventListener("click", () => this.#diagnose({ told: true }));
    address.follow(() => this.#show());
    model.on("budgets", () => this.#budgets());
    setInterval(() => this.tab === "counters" && !document.hidden && this.model.connection.connected && this.#counters(), COUNTED_EVERY);
    setInterval(() => this.#lookForFindings(), LOOKED_EVERY);
  }

  get tab() {
    return TABS.includes(this.address.get("side")) ? this.address.get("side") : "map";
  }

  // Brings a tab into sight, wherever it is.
  open(tab) {
    if (tab === "doctor" && this.tab === tab) this.#diagnose({ told: true });
    this.address.set({ side: tab });
    if (byId("fleet").offsetParent === null) this.address.go(null); // a page beside takes its place
    requestAnimationFrame(() => byId("fleet").scrollIntoView({ block: "nearest" }));
    byId("tabs").querySelector(`[data-tab="${tab}"]`).focus({ preventScroll: true });
  }

  #tab(name) {
    const title = name[0].toUpperCase() + name.slice(1);
    return h("button", { type: "button", role: "tab", id: `tab-${name}`, "data-tab": name, "aria-controls": `panel-${name}`, click: () => this.address.set({ side: name }) }, h("span", null, title), h("b"));
  }

  #show() {
    const { tab } = this;
    if (tab === this.#looked) return;
    const first = this.#looked === "";
    this.#looked = tab;
    for (const name of TABS) {
      const button = byId("tabs").querySelector(`[data-tab="${name}"]`);
      setAttribute(button, "aria-selected", name === tab);
      setAttribute(button, "tabindex", name === tab ? 0 : -1);
      document.getElementById(`panel-${name}`).hidden = name !== tab;
      if (name === tab && !first) byId("tabs").scrollLeft = button.offsetLeft - byId("tabs").offsetLeft - 40; // a phone shows some of them
    }
    if (tab === "doctor") this.#diagnose({ told: true });
    if (tab === "counters") this.#counters();
    if (tab === "tiles") this.#rooms();
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

  // Beside the title of a tab.
  mark(tab, number, tone = "") {
    const mark = byId("tabs").querySelector(`[data-tab="${tab}"] b`);
    setText(mark, number ? count(number) : "");
    setAttribute(mark, "class", tone || null);
  }

  // --- budgets --------------------------------------------------------------------------------------------------------

  #budgets() {
    const { budgets } = this.model;
    this.mark("budgets", budgets.length, budgets.some((each) => each.stranded || each.limits.length > 1) ? "warn" : "");
    const none = h("p", { class: "empty" }, "No budget is defined. ", h("code", null, "constraint-crdt budget add NAME --limit N"), " defines one.");
    replace(byId("budgets-list"), budgets.length ? budgets.map(budgetCard) : [none]);
  }

  // --- doctor ---------------------------------------------------------------------------------------------------------

  // The number beside the tab is right before the tab is opened: when the node tells other concerns, and now and then.
  #lookForFindings() {
    const { status, connection } = this.model;
    if (status === null || !connection.connected || document.hidden) return;
    const concerns = JSON.stringify((status.concerns ?? []).map((each) => [each.kind, each.node]));
    if (concerns === this.#diagnosed && Date.now() - this.#diagnosedAt < DIAGNOSED_EVERY) return;
    this.#diagnosed = concerns;
    this.#diagnose();
  }

  // `told`: the user waits for it.
  async #diagnose({ told = false } = {}) {
    const button = byId("doctor-again");
    this.#diagnosedAt = Date.now();
    if (told) {
      button.disabled = true;
      setText(byId("doctor-note"), "looking…");
    }
    try {
      const { findings } = await this.api.get("/v1/diagnosis");
      const worst = ["fail", "warn", "ok"];
      findings.sort((a, b) => worst.indexOf(a.level) - worst.indexOf(b.level));
      const wrong = findings.filter((each) => each.level !== "ok").length;
      this.mark("doctor", wrong, findings[0]?.level === "fail" ? "bad" : "warn");
      setText(byId("doctor-note"), wrong ? plural(wrong, "finding", "findings") : "nothing is wrong");
      replace(byId("doctor-list"), findings.map(finding));
    } catch (error) {
      if (error.status === undefined) throw error;
      if (told) setText(byId("doctor-note"), `${error.message}.`);
    } finally {
      if (told) button.disabled = false;
    }
  }

  // --- tiles ----------------------------------------------------------------------------------------------------------

  // The rooms; the tiles of one once it is opened.
  async #rooms() {
    try {
      const rooms = await this.api.get("/rooms");
      this.mark("tiles", rooms.length);
      const more = rooms.length - MOST_ROOMS;
      const room = (name) => {
        const place = h("div", null);
        const opened = (event) => event.target.open && this.#tiles(name, place);
        return h("details", { "data-room": name, toggle: opened }, h("summary", null, h("span", { class: "id" }, name)), place);
      };
      const none = h("p", { class: "empty" }, "No tile was written yet.");
      replace(byId("tiles-list"), rooms.length ? [...rooms.slice(0, MOST_ROOMS).map(room), more > 0 ? h("p", { class: "note" }, `and ${plural(more, "room", "rooms")} more`) : null] : [none]);
    } catch (error) {
      if (error.status === undefined) throw error; // else the banner says that the node is gone
    }
  }

  async #tiles(room, place) {
    try {
      const { tiles, tile_count: all } = await this.api.get(`/room/${encodeURIComponent(room)}`);
      tiles.sort((a, b) => b.updated_at - a.updated_at);
      place.replaceChildren(h("ul", { class: "pairs" }, tiles.slice(0, MOST_TILES).map(tileLine), all > MOST_TILES ? h("li", { class: "note" }, `and ${count(all - MOST_TILES)} more`) : null));
    } catch (error) {
      if (error.status === undefined) throw error;
      place.replaceChildren(h("p", { class: "error" }, `${error.message}.`));
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

function tileLine({ id, author, content, tags, updated_at: updated }) {
  const words = content.length > MOST_LETTERS ? `${content.slice(0, MOST_LETTERS)}…` : content;
  return h("li", { "data-tile": id }, h("span", { class: "id" }, id), h("small", null, `${author ? `by ${author}, ` : ""}${ago(updated * 1e6)}`), words ? h("small", { class: "told" }, words) : null, tags.length ? h("small", { class: "told" }, tags.join(", ")) : null);
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

function finding(each) {
  const glyph = { fail: "✕", warn: "!", ok: "✓" }[each.level];
  const tone = { fail: "bad", warn: "warn", ok: "good" }[each.level];
  return h("li", { class: "finding", "data-level": each.level, "data-check": each.check }, h("span", null, h("b", { class: tone }, `${glyph} ${each.check}`), " ", coded(each.what)), each.advice ? h("small", { class: "advice" }, coded(each.advice)) : null);
}
