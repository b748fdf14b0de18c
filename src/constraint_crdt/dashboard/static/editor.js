// The dialog that adds or edits a constraint.
//
// Rules: an edit begins with the definition in force, asked for anew, and keeps all of it that is not changed here, its end too. What
// would change is shown before it is sent. What somebody else changed meanwhile, or a constraint of the same id, is never replaced
// without a word: the difference to it is shown, and a second press is needed. The node says whether an edit loosens or tightens, by
// an example in values; to loosen what is critical takes a tick.

import { Problem, sentence } from "./api.js";
import { differences, inForce, inFull, requestOf, selectorOf } from "./definition.js";
import { announce, byId, coded, h, openDialog, setText } from "./dom.js";
import { at, shownFields } from "./format.js";

const CHECK_AFTER = 200; // ms without a key
const DURATIONS = ["for", "clear_after", "max_age"]; // s
const TEXTS = ["when", "about", "on", "clear_when", "each"];
const LABELS = { loosens: "Loosens", tightens: "Tightens", both: "Loosens and tightens", undecided: "Not decided whether it loosens", same: "The same" };
const CHOICES = { severity: "warning", if_unknown: "unknown", scope: "node", mode: "enforce" };

export class Editor {
  #checked = 0;
  #looked = 0;
  #labelled = 0;
  #timer = null;
  #labelTimer = null;
  #base = null; // {id, dots, request, many}: what is in force, as far as the dialog showed it; null: nothing
  #editing = false;

  // `written(id)`: a change was taken by the node.
  constructor(api, written) {
    this.api = api;
    this.written = written;
    byId("add-form").addEventListener("submit", (event) => this.#submitted(event));
    byId("add-form").addEventListener("input", () => this.#show());
    byId("add-when").addEventListener("input", () => this.#soon());
    byId("add-scope").addEventListener("change", () => this.#soon());
    byId("add-id").addEventListener("input", () => this.#soon());
    byId("notes-close").addEventListener("click", () => showNotes([]));
  }

  add() {
    this.#editing = false;
    this.#base = null;
    this.#open("", null);
    byId("add-id").focus();
  }

  // Edits the definition of `dot`, or the only one.
  async edit(id, dot = null) {
    this.#editing = true;
    this.#base = await this.#inForce(id, dot);
    this.#open(id, this.#base?.definition ?? null);
    if (this.#base === null) this.#editing = false;
    byId("add-when").focus();
    if (byId("add-when").value) this.#check();
  }

  #open(id, definition) {
    byId("add-form").reset();
    setText(byId("add-title"), definition ? "Edit a constraint" : "Add a constraint");
    byId("add-id").value = id;
    byId("add-id").readOnly = Boolean(definition);
    const said = definition ? { ...definition, on: selectorOf(definition) } : {};
    for (const name of [...TEXTS, ...DURATIONS]) byId(`add-${name}`).value = said[name] || "";
    for (const [name, usual] of Object.entries(CHOICES)) byId(`add-${name}`).value = definition?.[name] ?? usual;
    byId("add-why").value = "";
    const kept = byId("add-keep");
    kept.hidden = kept.disabled = !definition?.expires_at;
    if (definition?.expires_at) {
      setText(kept, `as now: ${at(definition.expires_at)}`);
      kept.selected = true;
    }
    byId("add-more").open = Boolean(definition && Object.keys(shownFields(definition)).length);
    setText(byId("add-error"), "");
    this.#verdict("", "");
    this.#effect(null);
    this.#show();
    openDialog(byId("add-dialog"));
  }

  // What is in force for an id; null if nothing is.
  async #inForce(id, dot = null) {
    const path = encodeURIComponent(id);
    const { constraints } = await this.api.get(`/v1/overview?id=${path}`);
    if (!constraints.length) return null; // asked first, as a browser writes each 404 into its console
    const standing = inForce(await this.api.get(`/v1/explain/${path}`));
    if (!standing.length) return null;
    const definition = standing.find((each) => each.dot === dot) ?? standing[0];
    const by = definition.actor ? `${definition.actor} on ${definition.added_by}` : definition.added_by;
    return { id, definition, request: requestOf(definition), dots: standing.map((each) => each.dot).join(" "), many: standing.length, by };
  }

  // What the dialog would send.
  #request() {
    const value = (name) => byId(`add-${name}`).value.trim();
    const body = { ...(this.#editing ? this.#base.request : {}), id: byId("add-id").value };
    for (const name of TEXTS) body[name] = value(name) || null;
    for (const name of DURATIONS) body[name] = value(name) ? Number(value(name)) : name === "max_age" ? null : 0;
    for (const name of Object.keys(CHOICES)) body[name] = value(name);
    const ends = value("ttl");
    if (ends !== "keep") delete body.until;
    if (ends && ends !== "keep") body.ttl = Number(ends);
    return body;
  }

  // Shows what would change against what is in force.
  #show() {
    const base = this.#base !== null && this.#base.id === byId("add-id").value ? this.#base : null;
    const box = byId("add-changes");
    box.hidden = base === null;
    setText(byId("add-submit"), base === null ? "Add it" : this.#editing ? "Change it" : `Replace ${base.id}`);
    byId("add-submit").disabled = false;
    if (base === null) return;
    const lines = differences(base.request, this.#request()).map(({ field, title, before, after }) =>
      h("div", { "data-field": field }, h("dt", null, title), h("dd", null, before && h("del", null, before), before && after ? " → " : "", h("ins", null, after || "nothing"))),
    );
    const many = base.many > 1 ? ` It ends all ${base.many} definitions in force.` : "";
    setText(byId("add-changes-title"), (lines.length ? (this.#editing ? "What changes:" : `${base.id} exists already, by ${base.by}. What would change:`) : this.#editing ? "Nothing is changed yet." : `${base.id} exists already, by ${base.by}, just like this.`) + many);
    byId("add-changes-list").replaceChildren(...lines);
    byId("add-submit").disabled = this.#editing && !lines.length && base.many < 2;
    clearTimeout(this.#labelTimer);
    if (lines.length) this.#labelTimer = setTimeout(() => this.#label(), CHECK_AFTER);
    else this.#effect(null);
  }

  // Asks what the edit would mean. An answer about what the dialog had before is not shown.
  async #label() {
    const turn = (this.#labelled += 1);
    let found = null;
    try {
      [found = null] = await this.api.send("POST", "/v1/effects", { changes: [{ add: inFull(this.#request()) }] });
    } catch (error) {
      if (!(error instanceof Problem)) throw error; // what is wrong with the definition is said elsewhere
    }
    if (turn === this.#labelled) this.#effect(found);
  }

  // Shows the label of the edit, and the tick that a critical constraint takes; null: no label.
  #effect(effect) {
    if (effect === null) this.#labelled += 1;
    const words = effect === null ? "" : effect.parts?.map((each) => each.text).join("; ") || "the same values are allowed";
    byId("add-effect").replaceChildren(...(effect === null ? [] : coded(`${LABELS[effect.effect] ?? effect.effect}: ${words}.`)));
    byId("add-loosen-row").hidden = !effect?.needs_loosen;
    if (!effect?.needs_loosen) byId("add-loosen").checked = false;
  }

  async #submitted(event) {
    event.preventDefault();
    const button = byId("add-submit");
    button.disabled = true;
    setText(byId("add-error"), "");
    try {
      if (await this.#send()) byId("add-dialog").close();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setText(byId("add-error"), sentence(error.message));
      const field = byId("add-form").elements.namedItem(`add-${error.field}`) ?? document.getElementById(`add-${error.field}`);
      if (field?.closest("details")) byId("add-more").open = true;
      if (error.field === "loosen") byId("add-loosen-row").hidden = false;
      field?.focus();
    } finally {
      button.disabled = false;
    }
  }

  // False if what is in force is not what the dialog showed.
  async #send() {
    const body = this.#request();
    const wrong = await this.#check();
    if (wrong) throw new Problem(wrong, 422, "when");
    if (!body.id) throw new Problem("a constraint needs an id", 422, "id");
    const shown = this.#base?.id === body.id ? this.#base.dots : "";
    const standing = await this.#inForce(body.id);
    if ((standing?.dots ?? "") !== shown) {
      this.#base = standing;
      if (standing === null) this.#editing = false;
      this.#show();
      const moved = standing === null ? `the constraint ${body.id} was removed meanwhile` : shown ? `meanwhile ${body.id} was changed by ${standing.by}` : `a constraint ${body.id} exists already`;
      throw new Problem(`${moved}: look at the difference, and press again if it is right`, 409);
    }
    const loosen = byId("add-loosen").checked ? { loosen: true } : {};
    const why = byId("add-why").value.trim();
    const { change, notes = [] } = await this.api.send("POST", "/v1/constraints", { ...inFull(body), new: standing === null, ...loosen }, { why });
    announce(`${body.id}: ${change}`);
    showNotes(notes.map((note) => `${body.id}: ${note}`));
    this.written(body.id);
    return true;
  }

  #soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#check();
      this.#lookFor(byId("add-id").value);
    }, CHECK_AFTER);
  }

  // Says that a constraint of the typed id exists, as soon as it is typed.
  async #lookFor(id) {
    if (this.#editing || !id || id === this.#base?.id) return;
    const turn = (this.#looked += 1);
    try {
      const standing = await this.#inForce(id);
      if (turn !== this.#looked || this.#editing) return;
      this.#base = standing;
      this.#show();
    } catch (error) {
      if (!(error instanceof Problem)) throw error; // else it is looked for again when it is sent
    }
  }

  // What is wrong with the expression that stands there now, if anything is. An answer to what stood there before is not shown.
  async #check() {
    clearTimeout(this.#timer);
    const when = byId("add-when").value.trim();
    const scope = byId("add-scope").value;
    const turn = (this.#checked += 1);
    const show = (kind, words) => turn === this.#checked && this.#verdict(kind, words);
    if (!when) {
      show("", "");
      return null;
    }
    try {
      const { ok, error, variables } = await this.api.send("POST", "/v1/expressions", scope === "node" ? { when } : { when, scope });
      if (ok) show("good", variables.length ? `Well formed. It needs ${variables.join(", ")}.` : "Well formed.");
      else show("bad", error);
      return error;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      show("", `Not checked: ${error.message}.`);
      return null; // the node looks at it again when it is added
    }
  }

  #verdict(kind, words) {
    const box = byId("add-verdict");
    box.className = `verdict ${kind}`;
    setText(box, words);
    byId("add-when").setAttribute("aria-invalid", kind === "bad");
  }
}

// What the node noticed about a constraint that it took, until it is closed or another one is added.
function showNotes(notes) {
  byId("notes-list").replaceChildren(...notes.map((note) => h("li", null, note)));
  byId("notes").hidden = !notes.length;
}
