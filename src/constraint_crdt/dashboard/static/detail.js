// The panel beside the rest: the page of one constraint or one node, kept fresh while it is open.

import { byId, h } from "./dom.js";

const AGAIN = 2000; // ms between two looks

export class Detail {
  #subject = null;
  #shown = "";
  #timer = null;
  #turn = 0;

  // `pages`: {constraint, node}, each with `content(id)`: an element with `from`, what it was made of, and maybe `drawn()`.
  constructor(model, pages, close) {
    Object.assign(this, { model, pages, close, box: byId("detail") });
    model.on("connection session", () => this.refresh());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.box.hidden && !document.querySelector("dialog[open]")) this.close();
    });
  }

  // `kind`: constraint, node or null.
  show(kind, id) {
    if (kind === (this.#subject?.kind ?? null) && id === (this.#subject?.id ?? null)) return;
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
      const content = await this.pages[subject.kind].content(subject.id);
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
    const close = h("button", { type: "button", class: "quiet close", "aria-label": "Close", "data-focus": "close", click: () => this.close() }, "✕");
    const head = h("header", null, h("p", { class: "note" }, kind === "node" ? "Node" : "Constraint"), close);
    const title = h("h2", { id: "detail-title", tabindex: "-1", "data-focus": "title" }, id);
    this.box.replaceChildren(head, title, content);
    content.drawn?.();
    this.box.scrollTop = scrolled;
    if (focused) this.box.querySelector(`[data-focus="${focused}"]`)?.focus({ preventScroll: true });
  }
}
