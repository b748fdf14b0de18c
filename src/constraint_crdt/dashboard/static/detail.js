// The panel beside the rest: the page of one constraint or one node, kept fresh while it is open.

import { byId, h } from "./dom.js";

const AGAIN = 2000; // ms between two looks
const AGED = 5000; // ms after which ages and durations are said anew

export class Detail {
  #subject = null;
  #shown = "";
  #shownAt = 0;
  #timer = null;
  #turn = 0;
  #opening = false; // the first content is still to come

  // `pages`: {constraint, node}, each with `content(id)`: {from, what it is made of; build(), the element; drawn(), once it is shown;
  // kept, an element that stays the same}.
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
    this.#put({ from: null, build: () => h("p", { class: "note" }, "One moment…") });
    this.box.scrollTop = 0;
    this.box.scrollIntoView({ block: "nearest" }); // on a phone it takes the place of all else
    this.#opening = true;
    this.refresh();
  }

  async refresh() {
    const subject = this.#subject;
    if (subject === null) return;
    clearTimeout(this.#timer);
    const turn = (this.#turn += 1);
    try {
      const content = await this.pages[subject.kind].content(subject.id);
      if (turn === this.#turn && subject === this.#subject) this.#put(content);
    } catch (error) {
      if (error.status === undefined) throw error;
      if (turn === this.#turn && error.status !== 0) this.#put({ from: error.message, build: () => h("p", { class: "error" }, `${error.message}.`) });
    }
    if (turn === this.#turn && this.#subject === subject) this.#timer = setTimeout(() => document.hidden || this.refresh(), AGAIN);
  }

  // Put in what is new, and leave focus and scroll position where they are.
  #put({ from, build, drawn, kept = null }) {
    const said = JSON.stringify(from);
    const selected = getSelection().containsNode(this.box, true) && !getSelection().isCollapsed; // somebody copies from it
    if (said === this.#shown && (selected || Date.now() - this.#shownAt < AGED)) return;
    this.#shown = said;
    this.#shownAt = Date.now();
    const scrolled = this.box.scrollTop;
    const focused = document.activeElement?.closest("#detail") ? document.activeElement.dataset.focus : undefined;
    const number = focused ? this.#focusable(focused).indexOf(document.activeElement) : 0; // several links may lead to a node
    const { kind, id } = this.#subject;
    const close = h("button", { type: "button", class: "quiet close", "aria-label": "Close", "data-focus": "close", click: () => this.close() }, "✕");
    const head = h("header", null, h("p", { class: "note" }, kind === "node" ? "Node" : "Constraint"), close);
    const title = h("h2", { id: "detail-title", tabindex: "-1", "data-focus": "title" }, id);
    const open = [...this.box.querySelectorAll("details[open] > summary")].map((each) => each.dataset.focus);
    this.#replace([head, title, build()], kept);
    for (const each of this.box.querySelectorAll("details > summary")) each.parentElement.open = open.includes(each.dataset.focus);
    drawn?.();
    this.box.scrollTop = scrolled;
    if (this.#opening && from !== null) {
      this.#opening = false;
      title.focus({ preventScroll: true }); // with the content, whichever look brought it: later it would be taken from the user
      return;
    }
    if (!focused || this.box.contains(document.activeElement)) return;
    const found = this.#focusable(focused);
    found[Math.min(number, found.length - 1)]?.focus({ preventScroll: true });
  }

  #focusable(name) {
    return [...this.box.querySelectorAll(`[data-focus="${CSS.escape(name)}"]`)];
  }

  // Puts the children in. An element that is kept takes the place of `[data-kept]`, and is not moved if it is there already: what is
  // open or has the focus in it stays so.
  #replace(children, kept) {
    const place = kept && children.at(-1).querySelector("[data-kept]");
    const body = kept?.parentElement;
    if (!place || !this.box.contains(kept)) {
      place?.replaceWith(kept);
      this.box.replaceChildren(...children);
      return;
    }
    const around = [...place.parentElement.children];
    for (const each of [...body.children]) if (each !== kept) each.remove();
    kept.before(...around.slice(0, around.indexOf(place)));
    kept.after(...around.slice(around.indexOf(place) + 1));
    for (const each of [...this.box.children]) if (each !== body) each.remove();
    body.before(...children.slice(0, -1));
  }
}
