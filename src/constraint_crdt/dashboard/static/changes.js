// The history of a constraint: who changed it, when, why, and what was different; and how to go back.

import { h } from "./dom.js";
import { ago, at } from "./format.js";
import { button, link } from "./parts.js";

const SHOWN = 20;
const WORDS = { add: "defined", edit: "changed", revert: "reverted", resolve: "resolved", remove: "removed", disable: "disabled", enable: "enabled", expire: "ended" };

export class Changes {
  #known = { key: "", found: [] };

  // `act`: {reason(question, act), written(id)}
  constructor(api, model, act) {
    Object.assign(this, { api, model, act });
  }

  // The changes kept of a constraint, the newest first. They are asked for when something is different from the last time.
  async of(id, { definitions, removals, disabled }) {
    const key = JSON.stringify([id, definitions.map((each) => [each.dot, each.expired]), removals.map((each) => each.dot), disabled]);
    if (key !== this.#known.key) {
      const found = await this.api.get(`/v1/history?id=${encodeURIComponent(id)}`);
      this.#known = { key, found: found.reverse() };
    }
    return this.#known.found;
  }

  // Undoes the last change; null where nothing is before it.
  undoButton(id, changes) {
    const [last] = changes;
    if (!last || !last.before.length || last.kind !== "constraint") return null;
    return button("Undo the last change…", "undo", () => this.#back(id, last.before, last.after, null), "quiet");
  }

  list(id, changes) {
    if (!changes.length) return h("p", { class: "note" }, "No change of it is kept.");
    const now = changes.find((each) => each.kind === "constraint");
    const line = (each) => {
      const who = each.actor ? `${each.actor} on ` : "";
      const version = each.kind === "constraint" && each.version !== null ? `version ${each.version}: ` : "";
      const words = WORDS[each.operation] ?? each.operation;
      const back = this.model.mayOperate && each.kind === "constraint" && each.version !== null && each.after.length > 0 && each !== now;
      return h(
        "li",
        { class: "change", "data-version": each.version },
        h("span", null, `${version}${each.operation === "add" && each.before.length ? "changed" : words} by ${who}`, each.node ? link("node", each.node) : "a node of which nothing is known"),
        h("small", null, `${at(each.time)}, ${ago(each.time)}`),
        each.why && h("small", { class: "told" }, each.why),
        difference(each.before, each.after),
        back && h("span", { class: "buttons left" }, button("Go back to this…", `version ${each.version}`, () => this.#back(id, now.after, each.after, each.version), "quiet small")),
      );
    };
    return h("ul", { class: "pairs" }, changes.slice(0, SHOWN).map(line), changes.length > SHOWN && h("li", { class: "note" }, `and ${changes.length - SHOWN} more: constraint-crdt history ${id}`));
  }

  // Says first what the node would do. `to`: a version; null undoes the last change.
  async #back(id, before, after, to) {
    const asked = { id, ...(to === null ? {} : { to }) };
    let notes, steps = [];
    try {
      ({ notes, steps } = await this.api.send("POST", "/v1/revert", { ...asked, dry_run: true }));
    } catch (error) {
      if (error.status === undefined) throw error;
      notes = [error.message];
    }
    const loosened = steps.map(({ effect }) => effect).filter((effect) => effect?.needs_loosen).flatMap(({ parts }) => parts.map((each) => each.text));
    const loosens = loosened.length ? h("p", { class: "error" }, `It is critical, and this loosens it: ${loosened.join("; ")}.`) : "";
    const [gone, come] = to === null ? [after, before] : [before, after];
    const title = to === null ? `Undo the last change of ${id}?` : `Go back to version ${to} of ${id}?`;
    this.act.reason({ title, lines: [difference(gone, come), loosens, ...notes], needed: false, yes: `${to === null ? "Undo it" : "Go back"}${loosens ? ", and loosen it" : ""}` }, async ({ why }) => {
      await this.api.send("POST", "/v1/revert", { ...asked, why, ...(loosens ? { loosen: true } : {}) });
      this.act.written(id);
    });
  }
}

// The fields that are different, each as it was and as it is.
function difference(before, after) {
  const fields = (lines) => new Map(lines.map((line) => [line.split(": ", 1)[0], line.slice(line.indexOf(": ") + 2)]));
  const [old, now] = [fields(before), fields(after)];
  const names = [...new Set([...old.keys(), ...now.keys()])].filter((name) => old.get(name) !== now.get(name));
  if (!names.length) return h("p", { class: "note" }, before.length ? "The same as before." : "");
  const line = (name) => h("div", null, h("dt", null, name), h("dd", null, old.has(name) && h("del", null, old.get(name)), old.has(name) && now.has(name) ? " → " : "", now.has(name) && h("ins", null, now.get(name))));
  return h("dl", { class: "changes" }, names.map(line));
}
