// All about one constraint or one node, beside the rest: what `explain` and `convergence` answer, as they answer it now.

import { byId, h } from "./dom.js";
import { linkWords } from "./fleet.js";
import { ago, at, count, duration, measured, ofTime, percent, plural, shownFields, span, stateClock } from "./format.js";
import { STATE_GLYPHS, STATE_WORDS } from "./model.js";
import { drawSparkline } from "./sparkline.js";

const AGAIN = 2000; // ms between two looks
const MOST_LISTED = 60;

export class Detail {
  #subject = null;
  #shown = "";
  #timer = null;
  #turn = 0;

  // `act`: {edit(row), remove(id), close()}
  constructor(api, model, act) {
    Object.assign(this, { api, model, act, box: byId("detail") });
    model.on("connection session", () => this.refresh());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.box.hidden && !document.querySelector("dialog[open]")) this.act.close();
    });
  }

  // `kind`: constraint, node or null.
  show(kind, id) {
    this.#subject = kind === null ? null : { kind, id };
    this.#shown = "";
    this.box.hidden = kind === null;
    document.body.classList.toggle("with-detail", kind !== null);
    clearTimeout(this.#timer);
    if (kind === null) return;
    this.#put(h("p", { class: "note" }, "One moment…"), "");
    this.box.scrollTop = 0;
    this.box.scrollIntoView({ block: "nearest" }); // on a phone it takes the place of all else
    this.refresh().then(() => this.box.querySelector("h2")?.focus({ preventScroll: true }));
  }

  async refresh() {
    const subject = this.#subject;
    if (subject === null) return;
    clearTimeout(this.#timer);
    const turn = (this.#turn += 1);
    try {
      const content = await (subject.kind === "node" ? this.#node(subject.id) : this.#constraint(subject.id));
      if (turn === this.#turn && subject === this.#subject) this.#put(content, JSON.stringify(content.from));
    } catch (error) {
      if (error.status === undefined) throw error;
      if (turn === this.#turn && error.status !== 0) this.#put(h("p", { class: "error" }, `${error.message}.`), error.message);
    }
    if (turn === this.#turn && this.#subject === subject) this.#timer = setTimeout(() => document.hidden || this.refresh(), AGAIN);
  }

  // Put in what is new, and leave focus and scroll position where they are.
  #put(content, from) {
    if (from !== "" && from === this.#shown) return;
    this.#shown = from;
    const scrolled = this.box.scrollTop;
    const focused = document.activeElement?.closest("#detail") ? document.activeElement.dataset.focus : undefined;
    const { kind, id } = this.#subject;
    const close = h("button", { type: "button", class: "quiet close", "aria-label": "Close", "data-focus": "close", click: () => this.act.close() }, "✕");
    const head = h("header", null, h("p", { class: "note" }, kind === "node" ? "Node" : "Constraint"), close);
    const title = h("h2", { id: "detail-title", tabindex: "-1", "data-focus": "title" }, id);
    this.box.replaceChildren(head, title, content);
    content.drawn?.();
    this.box.scrollTop = scrolled;
    if (focused) this.box.querySelector(`[data-focus="${focused}"]`)?.focus({ preventScroll: true });
  }

  // --- a constraint -------------------------------------------------------------------------------------------------

  async #constraint(id) {
    const path = encodeURIComponent(id);
    const [explained, rows] = await Promise.all([this.api.get(`/v1/explain/${path}`), this.api.get(`/v1/overview?id=${path}`)]);
    this.model.putRows(rows, [id]);
    const row = this.model.rows.get(id);
    const canvas = h("canvas", { class: "spark large", "aria-hidden": "true" });
    const box = h(
      "div",
      { class: "body" },
      row ? this.#head(row, explained) : h("p", { class: "error" }, "It is not active."),
      row && this.model.mayOperate && h("div", { class: "buttons left" }, this.#button("Edit", "edit", () => this.act.edit(row)), this.#button("Remove…", "remove", () => this.act.remove(id), "danger quiet")),
      row && section(`Time: held ${ofTime(row.data.held)} of the time`, timeBar(row.data), timeWords(row.data)),
      section("Recently violated, of the judgements", canvas, ...lately(explained)),
      section(`Where${row?.data.violated_now ? `: violated on ${count(row.data.violated_now)} now` : ""}`, where(explained)),
      explained.coverage && section(heardTitle(explained.coverage), coverage(explained.coverage)),
      section("History", history(explained)),
    );
    box.from = [explained, rows, this.model.mayOperate];
    box.drawn = () => row && drawSparkline(canvas, row.samples);
    return box;
  }

  #head(row, explained) {
    const { data, state } = row;
    return h(
      "div",
      { class: "lead" },
      h("p", { class: "line" }, h("span", { class: `badge ${state}` }, `${STATE_GLYPHS[state]} ${STATE_WORDS[state]}`), h("span", { class: `severity ${data.severity}` }, data.severity)),
      explained.definitions.filter((each) => !each.expired).map(definition),
      explained.conflict && h("p", { class: "error" }, "These definitions differ. All are enforced until the next edit."),
      data.about && h("p", null, data.about),
      here(data),
      !data.applies_here && h("p", { class: "note" }, `Only on nodes labelled ${labels(data.on)}; this one is not.`),
      data.expires_at && h("p", { class: "note" }, `Ends ${at(data.expires_at)}.`),
    );
  }

  #button(words, focus, click, kind = "") {
    return h("button", { type: "button", class: kind, "data-focus": focus, click }, words);
  }

  // --- a node -------------------------------------------------------------------------------------------------------

  async #node(name) {
    const [converged, evaluated] = await Promise.all([this.api.get("/v1/convergence"), this.api.get(`/v1/overview?limit=500&node=${encodeURIComponent(name)}`)]);
    const node = this.model.nodes.get(name);
    const box = h("div", { class: "body" });
    if (!node) {
      box.append(h("p", { class: "error" }, "No node of this name is known here."));
      return box;
    }
    const peer = converged.peers.find((each) => each.node === name);
    const held = this.model.held(name);
    box.from = [node, peer && { ...peer, heard: 0, staleness: Math.round(peer.staleness ?? 0) }, evaluated];
    box.append(
      h("p", { class: "line" }, h("span", { class: `badge ${node.live ? "holding" : "idle"}` }, node.live ? "✓ Live" : "– Not live"), h("span", null, name === this.model.status?.node ? "this node" : linkWords(node))),
      facts([
        ["Judgements satisfied, recently", percent(held)],
        ["Judgements violated, ever", count(node.violations)],
        ["Judgements satisfied, ever", count(node.satisfied)],
        ["Position", node.position ? node.position.join(", ") : "none"],
        ["Clock", node.clock_offset === null ? null : `${Math.abs(node.clock_offset).toFixed(2)} s ${node.clock_offset < 0 ? "behind" : "ahead"}`],
        ["Labels", labels(node.labels) || null],
        ["Software", node.software || null],
      ]),
      peer ? section("Convergence", convergence(peer)) : "",
      section("Violated on this node", this.#violations(evaluated, name)),
    );
    return box;
  }

  #violations(report, name) {
    const there = report.constraints.filter((each) => each.violated_on > 0);
    if (!there.length) return h("p", { class: "note" }, `None of the ${plural(report.constraints.length, "constraint", "constraints")} that it judged lately.`);
    there.sort((a, b) => b.violated_now - a.violated_now || b.lately[0][1] - a.lately[0][1]);
    const line = (each) => {
      const [satisfied, violated] = each.lately[0];
      const since = each.violated_now ? `now, since ${at(each.violated_since)}` : `${percent(violated / (satisfied + violated || 1))} of the judgements recently`;
      return h("li", null, link("constraint", each.id), h("small", { class: each.violated_now ? "bad" : "" }, since));
    };
    return h("ul", { class: "pairs" }, there.slice(0, MOST_LISTED).map(line), more(there.length, name));
  }
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

function section(title, ...content) {
  return h("section", null, h("h3", null, title), ...content);
}

function link(kind, id) {
  return h("a", { href: `#/${kind}/${encodeURIComponent(id)}`, "data-focus": `${kind} ${CSS.escape(id)}` }, id);
}

function facts(pairs) {
  return h("dl", { class: "pairs" }, pairs.filter(([, value]) => value !== null).map(([term, value]) => h("div", null, h("dt", null, term), h("dd", null, value))));
}

function labels(on) {
  return Object.entries(on ?? {}).map(([key, value]) => `${key}=${value}`).join(", ");
}

function more(all) {
  return all > MOST_LISTED && h("li", { class: "note" }, `and ${count(all - MOST_LISTED)} more`);
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

function convergence(peer) {
  return facts([
    ["State", `${peer.state}${peer.since ? ` since ${at(peer.since)}` : ""}`],
    ["Behind us by", peer.behind === null ? "not known" : plural(peer.behind, "change", "changes")],
    ["Ahead of us by", peer.ahead === null ? "not known" : plural(peer.ahead, "change", "changes")],
    ["Last heard", peer.heard ? ago(peer.heard) : "not since this node started"],
  ]);
}
