// The fleet: as a lattice, or as a table that says the same. Both are for everybody; the table is what a screen reader reads.

import { announce, byId, h, setAttribute, setText } from "./dom.js";
import { count, percent, plural } from "./format.js";
import { Lattice, LEVEL_WORDS, level } from "./lattice.js";
import { VirtualTable } from "./table.js";

const BY = {
  node: (a, b) => order(a.node, b.node),
  link: (a, b) => standing(b) - standing(a) || order(a.node, b.node),
  violations: (a, b) => b.violations - a.violations || order(a.node, b.node),
};

const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const standing = (node) => (node.retired || node.revoked ? 3 : !node.live ? 2 : node.same_state ? 0 : 1);

// What a node's ring says, in words.
export function linkWords(node) {
  if (node.retired) return "retired";
  if (node.revoked) return "revoked";
  if (!node.live) return node.convergence?.through ? `reachable through ${node.convergence.through}` : "not live";
  return node.same_state ? "same state" : node.same_constraints ? "same constraints" : "behind";
}

export class Fleet {
  #arrangement = "";

  constructor(model, address, open) {
    this.model = model;
    this.address = address;
    this.lattice = new Lattice(byId("lattice"), model, open, (name) => this.#label(name));
    this.table = new VirtualTable({
      box: byId("nodes-box"),
      table: byId("nodes-table"),
      columns: columns(model),
      key: (node) => node.node,
      open: (node) => open(node.node),
      sort: (column) => this.#sort(column),
    });
    address.follow(() => this.#looked());
    legend();
    model.on("nodes", () => this.#show());
  }

  // One of the two tabs is in sight now.
  look() {
    this.#show();
  }

  select(name) {
    this.lattice.select(name);
    this.table.select(name);
  }

  #show() {
    const nodes = [...this.model.nodes.values()];
    const ended = nodes.filter((node) => node.retired || node.revoked).length;
    const away = nodes.filter((node) => !node.live && !node.retired && !node.revoked).length;
    const behind = nodes.filter((node) => node.live && !node.same_constraints).length; // counts on their way are no news
    const standing = away || behind ? [away && `${count(away)} not live`, behind && `${count(behind)} behind`].filter(Boolean).join(", ") : "all agree";
    setText(byId("fleet-note"), `${plural(nodes.length - ended, "node", "nodes")}, ${standing}${ended ? `; ${count(ended)} retired or revoked` : ""}`);
    if (byId("panel-nodes").hidden) return;
    nodes.sort(BY[this.#by]);
    if (this.address.get("nodesdesc")) nodes.reverse();
    this.table.setItems(nodes);
  }

  #sort(column) {
    const same = this.#by === column;
    this.address.set({ nodes: column, nodesdesc: same && !this.address.get("nodesdesc") ? "1" : "" });
  }

  get #by() {
    return BY[this.address.get("nodes")] ? this.address.get("nodes") : "node";
  }

  // The address asks for another order.
  #looked() {
    const wanted = `${this.#by} ${this.address.get("nodesdesc")}`;
    if (wanted === this.#arrangement) return;
    this.#arrangement = wanted;
    this.table.setSort(this.#by, Boolean(this.address.get("nodesdesc")));
    this.#show();
  }

  #label(name) {
    const node = name === null ? null : this.model.nodes.get(name);
    const label = byId("lattice-label");
    label.hidden = !node;
    if (!node) return;
    const held = this.model.held(name);
    setText(label, `${name} · ${held === null ? "nothing judged recently" : `${percent(held)} of recent judgements satisfied`} · ${linkWords(node)}`);
    if (document.activeElement === byId("lattice")) announce(label.textContent);
  }
}

function legend() {
  const swatch = (kind, words) => h("li", null, h("i", { class: `swatch ${kind}` }), words);
  byId("legend").append(
    ...LEVEL_WORDS.map((words, step) => swatch(`level-${step}`, words)),
    swatch("none", "idle"),
    swatch("same", "same state"),
    swatch("behind", "behind"),
    swatch("gone", "not live"),
  );
}

function columns(model) {
  const text = (key, title, sorts, words) => ({
    key,
    title,
    sorts,
    make: (cell) => cell,
    update: (cell, node) => setText(cell, words(node)),
  });
  return [
    {
      key: "node",
      title: "Node",
      sorts: true,
      make: (cell) => {
        const swatch = h("i");
        const name = h("span", { class: "id" });
        cell.append(swatch, name);
        return { swatch, name };
      },
      update: ({ swatch, name }, node, element) => {
        const step = level(model.held(node.node));
        setAttribute(swatch, "class", `swatch ${!node.live ? "gone" : step === null ? "none" : `level-${step}`}`);
        setText(name, node.node === model.status?.node ? `${node.node} (this one)` : node.node);
        setAttribute(element, "data-id", node.node);
      },
    },
    text("link", "Knows", true, linkWords),
    text("held", "Judgements satisfied", false, (node) => percent(model.held(node.node))),
    text("violations", "Judgements violated", true, (node) => count(node.violations)),
    text("position", "Position", false, (node) => (node.position ? node.position.join(", ") : "–")),
  ];
}
