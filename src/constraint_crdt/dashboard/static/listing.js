// The constraints: what is wrong first, which of them to show, and what a row says.
//
// Rules: the usual order is what an operator asks for: violated, unknown, in conflict, then the rest; within it the severest first, then
// what lasts longest. Filter, search and order are those of the address.

import { byId, h, perFrame, setAttribute, setText } from "./dom.js";
import { at, count, duration, percent, plural, situation } from "./format.js";
import { SEVERITIES, STATE_GLYPHS, STATE_WORDS, STATES } from "./model.js";
import { drawSparkline } from "./sparkline.js";
import { VirtualTable } from "./table.js";
import { onTheme } from "./theme.js";

let painted = 0; // moves when the small charts have to be drawn anew

const ARRANGE_EVERY = 400; // ms: filtering and sorting 10,000 takes some 15 ms
const SOON = 600e3; // ms
const FOUND_NODES = 8;
const NARROW = { ...STATE_WORDS, conflicts: "In conflict" };
const second = (row) => Math.floor(row.since / 1e9); // what began in one look of a node stays in one order
const BY = {
  state: (a, b) => a.urgency - b.urgency || second(a) - second(b) || b.data.violated_on - a.data.violated_on || order(a, b),
  id: order,
  rate: (a, b) => (b.share ?? -1) - (a.share ?? -1) || order(a, b),
  heard: (a, b) => heardShare(a) - heardShare(b) || order(a, b),
};

function order(a, b) {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

function heardShare({ covered }) {
  return covered === null ? 2 : covered[0] / (covered[0] + covered[1] + covered[2]);
}

export class Listing {
  #arranged = 0;
  #arrangement = "";
  #shape = -1;
  #waiting = null;

  // `open(id)`; `scrolled()`: other rows came into sight.
  constructor(model, address, open, scrolled) {
    this.model = model;
    this.address = address;
    this.table = new VirtualTable({
      box: byId("constraints-box"),
      table: byId("constraints-table"),
      columns: columns(model),
      key: (row) => row.id,
      open: (row) => open(row.id),
      scrolled,
      sort: (column) => this.#sort(column),
    });
    this.chips = perFrame(() => this.#chips());
    byId("search").addEventListener("input", () => address.set({ q: byId("search").value }));
    model.on("rows", () => this.#soon());
    model.on("nodes", () => this.address.get("q") && this.#findNodes());
    model.on("alerts", this.chips);
    address.follow(() => this.#looked());
    const repaint = () => {
      painted += 1;
      this.table.render();
    };
    onTheme(repaint);
    new ResizeObserver(repaint).observe(byId("constraints-box"));
    setInterval(() => this.table.render(), 1000); // how long it lasts
  }

  visible() {
    return this.table.visible().map((row) => row.id);
  }

  get #by() {
    return BY[this.address.get("sort")] ? this.address.get("sort") : "state";
  }

  // The address asks for another filter or order.
  #looked() {
    const wanted = ["q", "only", "severity", "sort", "desc"].map((name) => this.address.get(name)).join("\n");
    if (wanted === this.#arrangement) return;
    if (this.#arrangement) byId("constraints-box").scrollTop = 0;
    this.#arrangement = wanted;
    if (byId("search").value !== this.address.get("q")) byId("search").value = this.address.get("q");
    this.table.setSort(this.#by, Boolean(this.address.get("desc")));
    this.#chips();
    this.#arrange();
    this.#findNodes();
  }

  // Now, and then not again for a while. What only moved in place is drawn at once, and keeps its place.
  #soon() {
    this.table.render();
    const inPlace = this.model.complete && this.#shape === this.model.shape && (this.#by === "state" || this.#by === "id");
    if (this.#waiting !== null || inPlace) return;
    this.chips();
    const wait = this.model.rows.size < 1000 ? 0 : Math.max(0, this.#arranged + ARRANGE_EVERY - Date.now());
    this.#waiting = setTimeout(() => {
      this.#waiting = null;
      this.#arrange();
    }, wait);
  }

  #words() {
    return this.address.get("q").toLowerCase().split(/\s+/).filter(Boolean);
  }

  #arrange() {
    this.#arranged = Date.now();
    this.#shape = this.model.shape;
    const [only, severity, words] = [this.address.get("only"), this.address.get("severity"), this.#words()];
    const items = [];
    for (const row of this.model.rows.values()) {
      if (only === "conflicts" ? row.data.definitions < 2 : only && row.state !== only) continue;
      if (severity && row.data.severity !== severity) continue;
      if (words.every((word) => row.found.includes(word))) items.push(row);
    }
    items.sort(BY[this.#by]);
    if (this.address.get("desc")) items.reverse();
    this.table.setItems(items);
    const { rows, total } = this.model;
    const all = Math.max(total, rows.size);
    const note = items.length === all ? plural(all, "constraint", "constraints") : `${count(items.length)} of ${count(all)}`;
    const busy = !this.model.complete && rows.size < all;
    setText(byId("constraints-note"), busy ? `${note}, more to come…` : note);
    setAttribute(byId("constraints"), "aria-busy", busy);
    const empty = byId("constraints-empty");
    empty.hidden = items.length > 0;
    setText(empty, all === 0 ? "No constraints yet. Add one: every node will enforce it within moments." : "None of the constraints is like that.");
  }

  #findNodes() {
    const found = this.model.findNodes(this.#words(), FOUND_NODES + 1);
    const box = byId("found-nodes");
    box.hidden = !found.length;
    const links = found.slice(0, FOUND_NODES).map(({ node }) => h("a", { href: `#/node/${encodeURIComponent(node)}` }, node));
    box.replaceChildren("Nodes: ", ...links.flatMap((link, index) => (index ? [", ", link] : [link])), found.length > FOUND_NODES ? " and more" : "");
  }

  #sort(column) {
    const same = this.#by === column;
    this.address.set({ sort: column, desc: same && !this.address.get("desc") ? "1" : "" });
  }

  #chips() {
    const counts = this.model.tally();
    const box = byId("chips");
    if (!box.childElementCount) {
      box.append(...["", "violated", "undecided", "conflicts", "lately", "audit", "holding", "idle", "disabled"].map((only) => this.#chip("only", only)));
      box.append(h("span", { class: "gap" }), ...SEVERITIES.map((severity) => this.#chip("severity", severity)));
    }
    for (const chip of box.querySelectorAll("button")) {
      const { filter, value } = chip.dataset;
      const number = value === "" ? Math.max(this.model.rows.size, this.model.complete ? 0 : this.model.total) : counts[value];
      setText(chip.firstChild, value === "" ? "All" : NARROW[value] ?? value);
      const known = value === "" || this.model.complete || this.model.rows.size >= this.model.total || (this.model.urgentKnown && (value === "violated" || value === "undecided"));
      setText(chip.lastChild, known ? count(number) : "…");
      const pressed = this.address.get(filter) === value;
      setAttribute(chip, "aria-pressed", pressed);
      chip.hidden = number === 0 && value !== "" && !pressed && value !== "violated";
    }
  }

  #chip(filter, value) {
    const click = () => this.address.set({ [filter]: this.address.get(filter) === value ? "" : value });
    return h("button", { type: "button", class: `chip ${value || "all"}`, "data-filter": filter, "data-value": value, click }, h("span"), " ", h("b"));
  }
}

// What is so, and where since when: two lines.
function told(row, model) {
  const { data, state } = row;
  const [first] = data.longest;
  const node = first && `${first.node}${model.nodes.get(first.node)?.live === false ? " (away)" : ""}`;
  if (state === "disabled") return { what: "evaluated on no node", where: "open it for who disabled it, and why", tone: "faint" };
  if ((state === "violated" || state === "audit") && first) {
    const more = data.violated_now - 1;
    return { what: situation(first) || first.reason || "violated", where: `${since(data.violated_since)} on ${node}${more ? ` and ${plural(more, "other", "others")}` : ""}`, tone: state === "audit" ? "faint" : "bad" };
  }
  if (state === "undecided") {
    const where = first ? `${since(first.since)} on ${node}${data.unknown_now > 1 ? ` and ${plural(data.unknown_now - 1, "other", "others")}` : ""}` : data.since ? `${since(data.since)} here` : "";
    return { what: first?.reason || data.reason || "no measurement decides it", where, tone: "warn" };
  }
  if (data.definitions > 1) return { what: `${plural(data.definitions, "definition", "definitions")}, all in force`, where: "open it to keep one, or both", tone: "warn" };
  if (state === "lately") return { what: `violated recently on ${data.worst.join(", ")}`, where: "", tone: "faint" };
  return { what: data.evaluated_on ? `holds on ${plural(data.evaluated_on, "node", "nodes")}` : "judged on no node lately", where: "", tone: "faint" };
}

// Seconds are of interest while there are few.
const since = (time) => `since ${Date.now() - time / 1e6 < SOON ? at(time) : at(time).replace(/(\d\d:\d\d):\d\d$/, "$1")} (${duration((Date.now() - time / 1e6) / 1000)})`;

const columns = (model) => [
  {
    key: "state",
    title: "State",
    sorts: true,
    make: (cell) => {
      const badge = h("span", { class: "badge" });
      cell.append(badge);
      return badge;
    },
    update: (badge, row, element) => {
      const { state } = row;
      setText(badge, `${STATE_GLYPHS[state]} ${STATE_WORDS[state]}`);
      setAttribute(badge, "class", `badge ${state}`);
      setAttribute(element, "data-state", state);
      setAttribute(element, "data-id", row.id);
    },
  },
  {
    key: "id",
    title: "Constraint",
    sorts: true,
    make: (cell) => {
      const name = h("span", { class: "id" });
      const severity = h("span", { class: "severity" });
      const conflict = h("span", { class: "conflict" }, "conflict");
      const when = h("code");
      const tags = h("span", { class: "tags" });
      cell.append(h("span", { class: "line" }, name, severity, conflict, tags), when);
      return { name, severity, conflict, tags, when };
    },
    update: ({ name, severity, conflict, tags, when }, { data }) => {
      setText(name, data.id);
      setText(severity, data.severity);
      setAttribute(severity, "class", `severity ${data.severity}`);
      conflict.hidden = data.definitions < 2;
      setText(tags, [data.mode !== "enforce" && data.mode, data.scope === "fleet" && "fleet"].filter(Boolean).join(" "));
      setText(when, `${data.when ?? data.about ?? "evaluated outside"}${data.definitions > 1 ? ` and ${plural(data.definitions - 1, "other", "others")}` : ""}`);
    },
  },
  {
    key: "now",
    title: "Now",
    make: (cell) => {
      const what = h("span", { class: "what" });
      const where = h("small");
      cell.append(what, where);
      return { what, where };
    },
    update: (parts, row) => {
      const { what, where, tone } = told(row, model);
      setText(parts.what, what);
      const flaps = row.state === "disabled" ? 0 : model.flapping.get(row.id);
      setText(parts.where, flaps ? `flaps, violated ${flaps} times in 10 min${where ? `; ${where.replace(/^since .*\) /, "")}` : ""}` : where);
      setAttribute(parts.what, "class", `what ${tone}`);
    },
  },
  {
    key: "rate",
    title: "Judgements violated",
    sorts: true,
    make: (cell) => {
      const canvas = h("canvas", { class: "spark", "aria-hidden": "true" });
      const share = h("span", { class: "share" });
      cell.append(canvas, share);
      return { canvas, share };
    },
    update: ({ canvas, share }, row) => {
      const seen = `${painted} ${row.id} ${row.samples.length} ${row.samples.at(-1)} ${row.looked}`;
      if (canvas.seen !== seen) {
        canvas.seen = seen;
        drawSparkline(canvas, row.samples);
      }
      setText(share, percent(row.share));
      setAttribute(share, "class", row.share ? "share some" : "share");
    },
  },
  {
    key: "heard",
    title: "Coverage",
    sorts: true,
    make: (cell) => {
      const text = h("span", { class: "heard" });
      const fill = h("i");
      cell.append(text, h("span", { class: "bar", "aria-hidden": "true" }, fill));
      return { text, fill };
    },
    update: ({ text, fill }, { covered }) => {
      const all = covered ? covered[0] + covered[1] + covered[2] : 0;
      setText(text, covered ? `${count(covered[0])}/${count(all)}` : "…");
      const width = `${covered ? (100 * covered[0]) / all : 0}%`;
      if (fill.style.width !== width) fill.style.width = width;
      setAttribute(fill, "class", covered && covered[0] < all ? "partly" : null);
    },
  },
];
