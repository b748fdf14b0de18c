// The line on top: whether the fleet can be reached, whether all enforce the same, and who is away since when.
//
// Rules: only what lasts is said. Counts and definitions on their way are no news: a node lacks changes once it lacked them for
// `LASTING`. The line says the worst first. A node is a link to its page; what the doctor knows more of leads to the doctor.

import { byId, h, perFrame, setAttribute } from "./dom.js";
import { count, duration, plural } from "./format.js";

const LASTING = 5000; // ms
const NAMED = 2; // nodes
const DOCTOR = null; // in place of a node
// What a node notices beside what is said anyhow: [tone, words before it]. The rest is in the list, or in the events.
const CONCERNS = { fault: ["bad", ""], clock: ["warn", "clock: "], duplicate: ["bad", ""], trouble: ["bad", ""], refused: ["warn", ""], "other fleet": ["warn", ""] };

export class Truth {
  #lacking = new Map(); // node: since when, in ms
  #shown = "";

  // `doctor()`: somebody asks what to do.
  constructor(model, doctor) {
    this.model = model;
    this.doctor = doctor;
    const show = perFrame(() => this.#show());
    model.on("status nodes", show);
    setInterval(show, 1000);
  }

  #show() {
    const { status, nodes } = this.model;
    if (!status || !nodes.size) return;
    const parts = this.#parts(status, [...nodes.values()].filter((node) => !node.retired && !node.revoked));
    const shown = JSON.stringify(parts);
    if (shown === this.#shown) return; // a screen reader and the layout hear of changes only
    this.#shown = shown;
    const box = byId("truth");
    const part = ([tone, words, node]) => {
      if (node === DOCTOR) return h("button", { type: "button", class: `inline ${tone}`, title: "What the doctor finds", click: this.doctor }, words);
      return h("span", { class: tone }, node ? h("a", { href: `#/node/${encodeURIComponent(node)}` }, node) : "", words);
    };
    box.replaceChildren(...parts.flatMap((each, index) => (index ? [" · ", part(each)] : [part(each)])));
    setAttribute(box, "data-worst", parts.some(([tone]) => tone === "bad") ? "bad" : parts.some(([tone]) => tone === "warn") ? "warn" : "good");
  }

  // [tone, words, the node that they begin with, or DOCTOR]
  #parts(status, nodes) {
    const away = nodes.filter((node) => !node.live).sort((a, b) => (b.convergence?.since ?? 0) - (a.convergence?.since ?? 0));
    const live = nodes.length - away.length;
    const parts = [];
    if (status.trouble) parts.push(["bad", `writes are refused: ${status.trouble}`, DOCTOR]);
    if (nodes.length > 1 && live === 1) parts.push(["bad", `cut off: none of ${count(nodes.length - 1)} other nodes reachable, what follows is as last heard`]);
    else parts.push([away.length ? "warn" : "good", `${count(live)} of ${plural(nodes.length, "node", "nodes")} reachable`]);
    const lacking = this.#lack(nodes);
    if (lacking.length) parts.push(["warn", `${few(lacking)} ${lacking.length === 1 ? "lacks" : "lack"} changes of constraints`]);
    else if (live > 1 || nodes.length === 1) parts.push(["good", "the same constraints everywhere"]);
    for (const node of away.slice(0, NAMED)) parts.push(["warn", ` away${awayFor(node)}`, node.node]);
    if (away.length > NAMED) parts.push(["warn", `${count(away.length - NAMED)} more away`]);
    if (status.clock_in_doubt) parts.push(["bad", "the clock of this node is in doubt", DOCTOR]);
    if (status.lost_writes) parts.push(["bad", `${plural(status.lost_writes, "write", "writes")} of this node lost`, DOCTOR]);
    if (status.all_disabled) parts.push(["bad", `no constraint is evaluated: all are disabled${status.all_disabled.why ? `, ${status.all_disabled.why}` : ""}`]);
    for (const { kind, what } of (status.concerns ?? []).filter((each) => each.kind in CONCERNS)) {
      const [tone, words] = CONCERNS[kind];
      parts.push([tone, `${words}${what}`, DOCTOR]);
    }
    return parts;
  }

  // The live nodes that lack changes of constraints for a while.
  #lack(nodes) {
    const now = Date.now();
    const lacking = nodes.filter((node) => node.live && !node.same_constraints).map((node) => node.node);
    this.#lacking = new Map(lacking.map((name) => [name, this.#lacking.get(name) ?? now]));
    return lacking.filter((name) => now - this.#lacking.get(name) >= LASTING);
  }
}

function awayFor({ convergence }) {
  const since = convergence?.since ?? convergence?.heard;
  const through = convergence?.through ? `, heard by ${convergence.through}` : "";
  return (since ? ` ${duration((Date.now() - since / 1e6) / 1000)}` : "") + through;
}

const few = (names) => (names.length > NAMED + 1 ? plural(names.length, "node", "nodes") : names.join(", "));
