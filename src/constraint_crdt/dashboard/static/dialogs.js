// Changing the fleet: adding, editing and removing a constraint; and the token, where the node asks for one.

import { announce, byId, h, setText } from "./dom.js";
import { Problem, sentence } from "./api.js";
import { shownFields } from "./format.js";

const CHECK_AFTER = 200; // ms without a key
const DURATIONS = ["for", "clear_after", "max_age"]; // s

export class Dialogs {
  #checked = 0;
  #timer = null;
  #removing = null;

  // `written(id)`: a change was taken by the node.
  constructor(written) {
    this.written = written;
    for (const button of document.querySelectorAll("dialog [data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
    byId("add-form").addEventListener("submit", (event) => this.#during(event, "add-error", () => this.#add()));
    byId("remove-form").addEventListener("submit", (event) => this.#during(event, "remove-error", () => this.#remove()));
    byId("notes-close").addEventListener("click", () => showNotes([]));
    byId("add-when").addEventListener("input", () => this.#soon());
    byId("add-scope").addEventListener("change", () => this.#soon());
  }

  // Without `row`: a new one.
  add(row = null) {
    const data = row?.data;
    byId("add-form").reset();
    setText(byId("add-title"), row ? "Edit a constraint" : "Add a constraint");
    setText(byId("add-submit"), row ? "Change it" : "Add it");
    byId("add-id").value = data?.id ?? "";
    byId("add-id").readOnly = Boolean(row);
    byId("add-when").value = data?.when ?? "";
    byId("add-severity").value = data?.severity ?? "warning";
    byId("add-about").value = data?.about ?? "";
    byId("add-on").value = Object.entries(data?.on ?? {}).map(([key, value]) => `${key}=${value}`).join(", ");
    for (const name of [...DURATIONS, "clear_when"]) byId(`add-${name}`).value = data?.[name] || "";
    byId("add-if_unknown").value = data?.if_unknown ?? "unknown";
    byId("add-scope").value = data?.scope ?? "node";
    byId("add-more").open = Boolean(data && Object.keys(shownFields(data)).length);
    setText(byId("add-error"), "");
    this.#verdict("", "");
    byId("add-dialog").showModal();
    byId(row ? "add-when" : "add-id").focus();
    if (data?.when) this.#check();
  }

  remove(id) {
    this.#removing = id;
    setText(byId("remove-id"), id);
    setText(byId("remove-error"), "");
    byId("remove-dialog").showModal();
  }

  // Resolves to the token that somebody typed; or to null if they would not, where that is allowed.
  askToken(why, optional) {
    setText(byId("token-error"), why);
    const dialog = byId("token-dialog");
    const field = byId("token");
    field.value = "";
    byId("token-cancel").hidden = !optional;
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.oncancel = (event) => optional || event.preventDefault(); // nothing can be shown without one
      dialog.onclose = () => resolve(null);
      byId("token-form").onsubmit = (event) => {
        event.preventDefault();
        const token = field.value.trim();
        if (!token) return;
        field.value = "";
        resolve(token);
        dialog.close();
      };
    });
  }

  async #during(event, place, work) {
    event.preventDefault();
    const button = event.target.querySelector("[type=submit]");
    button.disabled = true;
    setText(byId(place), "");
    try {
      await work();
      event.target.closest("dialog").close();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setText(byId(place), sentence(error.message));
      const field = byId(`add-${error.field}`);
      if (field?.closest("details")) byId("add-more").open = true;
      field?.focus();
    } finally {
      button.disabled = false;
    }
  }

  async #add() {
    const value = (name) => byId(`add-${name}`).value.trim();
    const id = byId("add-id").value;
    const wrong = await this.#check();
    if (wrong) throw new Problem(wrong, 422, "when");
    const body = { id, severity: value("severity") };
    if (value("when")) body.when = value("when");
    if (value("about")) body.about = value("about");
    if (value("on")) body.on = parseLabels(value("on"));
    if (value("ttl")) body.ttl = Number(value("ttl"));
    for (const name of DURATIONS) if (value(name)) body[name] = Number(value(name));
    if (value("clear_when")) body.clear_when = value("clear_when");
    if (value("if_unknown") !== "unknown") body.if_unknown = value("if_unknown");
    if (value("scope") !== "node") body.scope = value("scope");
    const { change, notes = [] } = await this.api.send("POST", "/v1/constraints", body);
    announce(`${id}: ${change}`);
    showNotes(notes.map((note) => `${id}: ${note}`));
    this.written(id);
  }

  async #remove() {
    await this.api.send("DELETE", `/v1/constraints/${encodeURIComponent(this.#removing)}`);
    announce(`${this.#removing} is removed`);
    this.written(this.#removing);
  }

  #soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#check(), CHECK_AFTER);
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

function parseLabels(text) {
  const labels = {};
  for (const part of text.split(",").map((each) => each.trim()).filter(Boolean)) {
    const [key, value] = part.split("=", 2).map((each) => each?.trim());
    if (!key || !value) throw new Problem(`“${part}” is not a label: write it as kind=press`, 422, "on");
    labels[key] = value;
  }
  return labels;
}
