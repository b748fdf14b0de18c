// What happened: the last events, latest first, and a strip that shows when.

import { byId, fitted, h, perFrame, setText } from "./dom.js";
import { at } from "./format.js";
import { colour, onTheme } from "./theme.js";

const SHOWN = 120;
const STRIP_MS = 10 * 60 * 1000;

// Kind: [glyph, tone, words]. `{b}` is the budget, `{c}` the constraint, `{n}` the node.
const WORDS = {
  added: ["+", "new", "{c} was added"],
  changed: ["~", "new", "{c} was changed"],
  removed: ["–", "calm", "{c} was removed"],
  expired: ["–", "calm", "{c} expired"],
  parameter: ["=", "calm", "a parameter was set:"],
  conflict: ["!", "bad", "{c} has definitions that differ"],
  violated: ["✕", "bad", "{c} is violated on {n}"],
  satisfied: ["✓", "good", "{c} is satisfied again on {n}"],
  "peer up": ["↑", "good", "{n} is live"],
  "peer down": ["↓", "warn", "{n} is not live"],
  "duplicate name": ["!", "bad", "another node has the name {n}"],
  diverged: ["!", "bad", "{n} has our clock and another state: one of the two is damaged"],
  repaired: ["✓", "good", "cells were repaired with {n}"],
  "clock skew": ["!", "warn", "the clock of {n} differs"],
  "clock stepped": ["!", "warn", "the clock of this node was set"],
  "clock doubted": ["!", "bad", "the clock of this node is in doubt"],
  "clock trusted": ["✓", "good", "the clock of this node is right again"],
  "rolled back": ["!", "bad", "the store of {n} had been put back: writes were missing"],
  "new life": ["•", "calm", "{n} began a new life"],
  retired: ["–", "calm", "{n} was retired for good"],
  "retirement undone": ["+", "calm", "{n} is in service again"],
  revoked: ["!", "warn", "the keys of {n} were revoked"],
  forked: ["!", "bad", "{n} runs twice, or lies"],
  "tile put": ["+", "new", "a tile was written:"],
  "tile deleted": ["–", "calm", "a tile was deleted:"],
  "budget added": ["+", "new", "the budget {b} was defined"],
  "budget changed": ["~", "new", "the budget {b} was changed"],
  "budget removed": ["–", "calm", "the budget {b} was removed"],
  "budget conflict": ["!", "warn", "limits of the budget {b} were set at once"],
  "budget stranded": ["!", "warn", "rights of the budget {b} are out of reach"],
  "budget reachable": ["✓", "good", "all rights of the budget {b} can be reached"],
  trouble: ["!", "bad", "writes are refused"],
  recovered: ["✓", "good", "writes are accepted again"],
  alert: ["!", "bad", "alert"],
  "alert resolved": ["✓", "good", "alert over"],
  silenced: ["–", "calm", "alerts are silenced"],
  "silence ended": ["•", "calm", "a silence was ended"],
  gap: ["…", "calm", "events were missed"],
  dropped: ["…", "calm", "this page was too slow, and was disconnected"],
};

const tone = (event) => (WORDS[event.kind] ?? [])[1] ?? "calm";

export class Happenings {
  #newest = null;

  constructor(model) {
    this.model = model;
    this.list = byId("events");
    const draw = perFrame(() => this.#strip());
    const show = perFrame(() => this.#show());
    model.on("events", () => {
      show();
      draw();
    });
    onTheme(draw);
    new ResizeObserver(draw).observe(byId("strip"));
    setInterval(draw, 5000);
    show();
  }

  // New ones are put on top and old ones taken away; what stays is not touched.
  #show() {
    const { events } = this.model;
    setText(byId("timeline-note"), events.length ? `the strip: the last ${STRIP_MS / 60000} minutes` : "none yet");
    const fresh = this.#newest === null ? events.length : events.indexOf(this.#newest);
    const added = events.slice(0, Math.min(fresh < 0 ? events.length : fresh, SHOWN));
    this.list.prepend(...added.map(line));
    while (this.list.childElementCount > SHOWN) this.list.lastElementChild.remove();
    this.#newest = events[0] ?? null;
  }

  #strip() {
    const { context, width, height } = fitted(byId("strip"));
    const now = Date.now();
    context.strokeStyle = colour("line");
    context.beginPath();
    for (let minute = 0; minute <= 10; minute += 1) {
      const x = Math.round((width * minute) / 10) + 0.5;
      context.moveTo(x, height - (minute % 5 ? 4 : 8));
      context.lineTo(x, height);
    }
    context.moveTo(0, height - 0.5);
    context.lineTo(width, height - 0.5);
    context.stroke();
    for (const event of this.model.events) {
      const x = width * (1 - (now - event.time / 1e6) / STRIP_MS);
      if (x < 0) break;
      const kind = tone(event);
      const tall = kind === "bad" ? 1 : kind === "calm" ? 0.45 : 0.7;
      context.fillStyle = colour(`tone-${kind}`);
      context.fillRect(Math.min(x, width - 2), height - 2 - tall * (height - 4), 2, tall * (height - 4));
    }
  }
}

function line(event) {
  const [glyph, kind, words] = WORDS[event.kind] ?? ["•", "calm", event.kind];
  const parts = words.split(/(\{[bcn]\})/).map((part) => {
    if (part === "{c}" && event.constraint) return h("a", { href: `#/constraint/${encodeURIComponent(event.constraint)}` }, event.constraint);
    if (part === "{n}" && event.node) return h("a", { href: `#/node/${encodeURIComponent(event.node)}` }, event.node);
    return part === "{b}" && event.budget ? event.budget : part.replace(/\{[bcn]\}/, "…");
  });
  const tile = event.tile ? ` ${event.room}/${event.tile}` : "";
  return h(
    "li",
    { class: kind, "data-kind": event.kind },
    h("time", { datetime: new Date(event.time / 1e6).toISOString() }, at(event.time)),
    h("i", { "aria-hidden": "true" }, glyph),
    h("span", null, ...parts, tile, event.detail ? h("small", null, event.detail) : null, event.actor ? h("small", null, `by ${event.actor} on ${event.by}`) : null),
  );
}
