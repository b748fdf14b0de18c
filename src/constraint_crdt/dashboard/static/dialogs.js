// Asking before something is done that others will notice, and for the token, where the node asks for one.

import { Problem, sentence } from "./api.js";
import { byId, h, setText } from "./dom.js";

export class Dialogs {
  #act = null;

  constructor() {
    for (const button of document.querySelectorAll("dialog [data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
    byId("confirm-form").addEventListener("submit", (event) => this.#confirmed(event));
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
    byId("confirm-dialog").showModal();
  }

  async #confirmed(event) {
    event.preventDefault();
    const button = byId("confirm-yes");
    button.disabled = true;
    setText(byId("confirm-error"), "");
    try {
      await this.#act();
      byId("confirm-dialog").close();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setText(byId("confirm-error"), sentence(error.message));
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
