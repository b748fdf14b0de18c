// What the pages of constraints and nodes are made of.

import { h } from "./dom.js";
import { count } from "./format.js";

export const MOST_LISTED = 60;

export function section(title, ...content) {
  return h("section", null, h("h3", null, title), ...content);
}

export function button(words, focus, click, kind = "") {
  return h("button", { type: "button", class: kind, "data-focus": focus, click }, words);
}

export function link(kind, id) {
  return h("a", { href: `#/${kind}/${encodeURIComponent(id)}`, "data-focus": `${kind} ${id}` }, id);
}

export function facts(pairs) {
  return h("dl", { class: "pairs" }, pairs.filter(([, value]) => value !== null).map(([term, value]) => h("div", null, h("dt", null, term), h("dd", null, value))));
}

export function more(all) {
  return all > MOST_LISTED && h("li", { class: "note" }, `and ${count(all - MOST_LISTED)} more`);
}
