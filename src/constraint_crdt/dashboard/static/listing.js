// The constraints: which of them to show, in which order, and what a row says.

import { byId, h, perFrame, setAttribute, setText } from "./dom.js";
import { count, percent, plural } from "./format.js";
import { STATE_GLYPHS, STATE_WORDS, STATES } from "./model.js";
import { drawSparkline } from "./sparkline.js";
import { VirtualTable } from "./table.js";
import { onTheme } from "./theme.js";

const ARRANGE_EVERY = 400; // ms: filtering and sorting 10,000 takes some 15 ms
const NARROW = { ...STATE_WORDS, conflicts: "In conflict" };
const BY = {
  state: (a, b) => a.urgency - b.urgency || b.data.violated_on - a.data.violated_on || order(a, b),
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
  #only = null;
  #by = "state";
  #descending = false;
  #arranged = 0;
  #shape = -1;
  #waiting = null;

  // `open(id)`; `scrolled()`: other rows came into sight.
  constructor(model, open, scrolled) {
    this.model = model;
    this.table = new VirtualTable({
      box: byId("constraints-box"),
      table: byId("constraints-table"),
      columns: COLUMNS,
      key: (row) => row.id,
      open: (row) => open(row.id),
      scrolled,
      sort: (column) => this.#sort(column),
    });
    this.table.setSort(this.#by, false);
    this.chips = perFrame(() => this.#chips());
    byId("search").addEventListener("input", () => this.#arrange());
    model.on("rows", () => this.#soon());
    onTheme(() => this.table.render());
  }

  visible() {
    return this.table.visible().map((row) => row.id);
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

  #arrange() {
    this.#arranged = Date.now();
    this.#shape = this.model.shape;
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const items = [];
    for (const row of this.model.rows.values()) {
      if (this.#only === "conflicts" ? row.data.definitions < 2 : this.#only !== null && row.state !== this.#only) continue;
      if (words.every((word) => row.found.includes(word))) items.push(row);
    }
    items.sort(BY[this.#by]);
    if (this.#descending) items.reverse();
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

  #sort(column) {
    this.#descending = this.#by === column && !this.#descending;
    this.#by = column;
    this.table.setSort(column, this.#descending);
    this.#arrange();
  }

  #chips() {
    const counts = this.model.tally();
    const box = byId("chips");
    if (!box.childElementCount) {
      for (const only of [null, ...STATES, "conflicts"]) {
        const click = () => {
          this.#only = this.#only === only ? null : only;
          byId("constraints-box").scrollTop = 0;
          this.#chips();
          this.#arrange();
        };
        box.append(h("button", { type: "button", class: `chip ${only ?? "all"}`, "data-only": only ?? "", click }, h("span"), " ", h("b")));
      }
    }
    for (const chip of box.children) {
      const only = chip.dataset.only || null;
      const number = only === null ? Math.max(this.model.rows.size, this.model.complete ? 0 : this.model.total) : counts[only];
      setText(chip.firstChild, only === null ? "All" : NARROW[only]);
      setText(chip.lastChild, count(number));
      setAttribute(chip, "aria-pressed", this.#only === only);
      chip.hidden = number === 0 && only !== null && this.#only !== only && only !== "violated";
    }
  }
}

const COLUMNS = [
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
      cell.append(h("span", { class: "line" }, name, severity, conflict), when);
      return { name, severity, conflict, when };
    },
    update: ({ name, severity, conflict, when }, { data }) => {
      setText(name, data.id);
      setText(severity, data.severity);
      setAttribute(severity, "class", `severity ${data.severity}`);
      conflict.hidden = data.definitions < 2;
      setText(when, data.when ?? data.about ?? "evaluated outside");
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
      const seen = `${row.id} ${row.samples.length} ${row.samples.at(-1)} ${row.looked}`;
      if (canvas.seen !== seen) {
        canvas.seen = seen;
        drawSparkline(canvas, row.samples);
      }
      setText(share, percent(row.share));
      setAttribute(share, "class", row.share ? "share some" : "share");
    },
  },
  {
    key: "where",
    title: "Where",
    make: (cell) => {
      const text = h("span");
      cell.append(text);
      return text;
    },
    update: (text, { data }) => {
      const more = data.violated_on - data.worst.length;
      const where = data.worst.join(", ") + (more > 0 ? ` and ${count(more)} more` : "");
      setText(text, where || (data.evaluated_on ? `holds on ${plural(data.evaluated_on, "node", "nodes")}` : ""));
      setAttribute(text, "class", where ? "bad" : "faint");
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
