// A table of any length: only the rows that are in sight are in the document.
//
// Rules: every row is as high as `--row` of its box says. One row can be reached with the tabulator key, the arrow keys move from
// row to row, Enter opens one (the ARIA grid pattern, with the row as the unit). A row that stays in sight keeps its element.

import { h, perFrame, setAttribute } from "./dom.js";

const AROUND = 6; // rows kept on either side of what is in sight

export class VirtualTable {
  #items = [];
  #shown = new Map();
  #active = null;
  #selected = null;
  #top;
  #bottom;
  #byKey = null;

  // `columns`: {key, title, sorts, make(cell), update(parts, item)}; `key(item)`; `open(item)`; `scrolled()`; `sort(column key)`.
  constructor({ box, table, columns, key, open, scrolled, sort }) {
    Object.assign(this, { box, table, columns, key, open });
    this.body = table.tBodies[0];
    this.#top = spacer();
    this.#bottom = spacer();
    this.body.append(this.#top, this.#bottom);
    this.render = perFrame(() => this.#render());
    this.#head(sort);
    setAttribute(table, "aria-colcount", columns.length);
    box.addEventListener("scroll", () => {
      this.render();
      scrolled?.();
    }, { passive: true });
    box.addEventListener("keydown", (event) => this.#pressed(event));
    this.body.addEventListener("click", (event) => this.#clicked(event));
    this.body.addEventListener("focusin", (event) => this.#focused(event));
    new ResizeObserver(this.render).observe(box);
  }

  get items() {
    return this.#items;
  }

  setItems(items) {
    this.#items = items;
    this.#byKey = null;
    setAttribute(this.table, "aria-rowcount", items.length + 1);
    this.render();
  }

  select(key) {
    this.#selected = key;
    if (key !== null) this.#active = key;
    this.render();
  }

  // The items in sight.
  visible() {
    const height = this.#rowHeight();
    const first = Math.max(0, Math.floor(this.box.scrollTop / height));
    return this.#items.slice(first, first + Math.ceil(this.box.clientHeight / height) + 1);
  }

  setSort(column, descending) {
    for (const cell of this.table.tHead.rows[0].cells) {
      setAttribute(cell, "aria-sort", cell.dataset.key === column ? (descending ? "descending" : "ascending") : null);
    }
  }

  #head(sort) {
    const row = this.table.tHead.rows[0];
    setAttribute(row, "aria-rowindex", 1);
    for (const { key, title, sorts } of this.columns) {
      const content = sorts ? h("button", { type: "button", click: () => sort(key) }, title) : title;
      row.append(h("th", { role: "columnheader", scope: "col", class: `c-${key}`, "data-key": key }, content));
    }
  }

  #rowHeight() {
    return parseFloat(getComputedStyle(this.box).getPropertyValue("--row")) || 52;
  }

  #indexOf(key) {
    this.#byKey ??= new Map(this.#items.map((item, index) => [this.key(item), index]));
    return this.#byKey.get(key) ?? -1;
  }

  #render() {
    if (this.box.clientHeight === 0) return; // out of sight
    const height = this.#rowHeight();
    const first = Math.max(0, Math.floor(this.box.scrollTop / height) - AROUND);
    const end = Math.min(this.#items.length, first + Math.ceil(this.box.clientHeight / height) + 2 * AROUND);
    const wanted = new Map(this.#items.slice(first, end).map((item, offset) => [this.key(item), first + offset]));
    const free = [];
    for (const [key, entry] of this.#shown) {
      if (wanted.has(key)) continue;
      this.#shown.delete(key);
      free.push(entry);
    }
    if (free.some((entry) => entry.row === document.activeElement)) this.box.focus({ preventScroll: true });
    const tabbable = wanted.has(this.#active) ? this.#active : this.key(this.visible()[0] ?? this.#items[first] ?? {});
    let before = this.#top;
    for (const [key, index] of wanted) {
      let entry = this.#shown.get(key);
      if (entry === undefined) {
        entry = free.pop() ?? this.#make();
        entry.key = key;
        this.#shown.set(key, entry);
      }
      if (before.nextSibling !== entry.row) before.after(entry.row);
      before = entry.row;
      this.#update(entry, index, key === tabbable);
    }
    for (const entry of free) entry.row.remove();
    this.#top.style.height = `${first * height}px`;
    this.#bottom.style.height = `${(this.#items.length - end) * height}px`;
  }

  #make() {
    const row = h("tr", { role: "row" });
    const parts = this.columns.map((column) => {
      const cell = h("td", { role: "gridcell", class: `c-${column.key}` });
      row.append(cell);
      return column.make(cell);
    });
    return { row, parts, key: null };
  }

  #update(entry, index, tabbable) {
    const item = this.#items[index];
    setAttribute(entry.row, "aria-rowindex", index + 2);
    setAttribute(entry.row, "tabindex", tabbable ? 0 : -1);
    setAttribute(entry.row, "aria-selected", entry.key === this.#selected);
    setAttribute(entry.row, "class", index % 2 ? "odd" : null);
    this.columns.forEach((column, place) => column.update(entry.parts[place], item, entry.row));
  }

  #entryOf(target) {
    const row = target.closest("tr");
    for (const entry of this.#shown.values()) if (entry.row === row) return entry;
    return null;
  }

  #clicked(event) {
    const entry = this.#entryOf(event.target);
    if (entry) this.open(this.#items[this.#indexOf(entry.key)]);
  }

  #focused(event) {
    const entry = this.#entryOf(event.target);
    if (entry === null || entry.key === this.#active) return;
    this.#active = entry.key;
    this.render();
  }

  #pressed(event) {
    if (event.target !== this.box && event.target.closest("tbody") !== this.body) return;
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.#rowHeight()) - 1);
    const at = Math.max(0, this.#indexOf(this.#active));
    const last = this.#items.length - 1;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: last }[event.key];
    if (to !== undefined && last >= 0) {
      event.preventDefault();
      this.#go(Math.min(Math.max(to, 0), last));
    } else if ((event.key === "Enter" || event.key === " ") && this.#indexOf(this.#active) >= 0) {
      event.preventDefault();
      this.open(this.#items[at]);
    }
  }

  #go(index) {
    const height = this.#rowHeight();
    const head = this.table.tHead.offsetHeight;
    const top = index * height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + height > this.box.scrollTop + this.box.clientHeight - head) this.box.scrollTop = top + height - this.box.clientHeight + head;
    this.#active = this.key(this.#items[index]);
    this.#render();
    this.#shown.get(this.#active)?.row.focus({ preventScroll: true });
  }
}

function spacer() {
  return h("tr", { class: "spacer", "aria-hidden": "true" });
}
