// Asking before something is done that others will notice, and for the token, where the node asks for one.

import { Problem, sentence } from "./api.js";
import { byId, h, openDialog, setText } from "./dom.js";

export class Dialogs {
  #act = null;
  #reasoned = null;
  #needsReason = false;

  constructor() {
    for (const button of document.querySelectorAll("dialog [data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
    byId("confirm-form").addEventListener("submit", (event) => this.#confirmed(event));
    byId("reason-form").addEventListener("submit", (event) => this.#reasonGiven(event));
  }

  // `lines`: what it means, as elements or texts. `act()` is called once it is confirmed; what it throws is shown.
  confirm({ title, lines = [], yes, no = "Cancel", danger = false }, act) {
    this.#act = act;
    setText(byId("confirm-title"), title);
    byId("confirm-lines").replaceChildren(...lines.filter(Boolean).map((line) => (typeof line === "string" ? h("p", null, line) : line)));
    setText(byId("confirm-error"), "");
    setText(byId("confirm-yes"), yes);
    byId("confirm-yes").className = danger ? "danger" : "primary";
    setText(byId("confirm-no"), no);
    openDialog(byId("confirm-dialog"));
  }

  #confirmed(event) {
    event.preventDefault();
    this.#doing("confirm", () => this.#act());
  }

  // Asks why, and what else is to be known. `fields`: {alert, on}, with what they begin with; those left out are not asked for.
  // `lengths`: [words, seconds], seconds "" for no end, the first being the usual one. `act({alert, on, for, why})` as in `confirm`.
  reason({ title, lines = [], fields = {}, lengths = [], needed = true, yes }, act) {
    this.#reasoned = act;
    this.#needsReason = needed;
    byId("reason-form").reset();
    setText(byId("reason-title"), title);
    byId("reason-lines").replaceChildren(...lines.filter(Boolean).map((line) => (typeof line === "string" ? h("p", { class: "note" }, line) : line)));
    for (const name of ["alert", "on"]) {
      byId(`reason-${name}`).value = fields[name] ?? "";
      byId(`reason-${name}`).closest("label").hidden = fields[name] === undefined;
    }
    byId("reason-for").replaceChildren(...lengths.map(([words, seconds]) => h("option", { value: String(seconds) }, words)));
    byId("reason-for").closest("label").hidden = !lengths.length;
    byId("reason-why").required = needed;
    setText(byId("reason-why-title"), needed ? "Why" : "Why (optional)");
    setText(byId("reason-error"), "");
    setText(byId("reason-yes"), yes);
    openDialog(byId("reason-dialog"));
    byId("reason-why").focus();
  }

  #reasonGiven(event) {
    event.preventDefault();
    const value = (name) => byId(`reason-${name}`).value.trim();
    this.#doing("reason", async () => {
      if (this.#needsReason && !value("why")) throw new Problem("say why, for the others", 422, "why");
      await this.#reasoned({ alert: value("alert"), on: value("on"), for: value("for") === "" ? null : Number(value("for")), why: value("why") });
    });
  }

  // Does what was confirmed, and closes the dialog; what the node refuses is shown in it.
  async #doing(name, act) {
    const button = byId(`${name}-yes`);
    button.disabled = true;
    setText(byId(`${name}-error`), "");
    try {
      await act();
      byId(`${name}-dialog`).close();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setText(byId(`${name}-error`), sentence(error.message));
      document.getElementById(`${name}-${error.field}`)?.focus();
    } finally {
      button.disabled = false;
    }
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
}
