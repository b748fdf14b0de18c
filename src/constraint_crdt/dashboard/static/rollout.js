// Rollouts: a line above the constraints for each that runs or has stopped, with what can be done about it.

import { announce, byId, h } from "./dom.js";
import { plural } from "./format.js";

const LOOK_EVERY = 1500; // ms between two looks while one is active

export class Rollouts {
  #asked = 0;
  #shown = "[]";

  // `confirm(question, act)`: see `Dialogs`.
  constructor(api, model, confirm) {
    Object.assign(this, { api, model, confirm });
    model.on("status", () => this.#look());
    model.on("session", () => this.#look(true));
  }

  async #look(anew = false) {
    const { concerns = [] } = this.model.status ?? {};
    const active = concerns.some((each) => each.kind.startsWith("rollout"));
    if (!active && this.#shown === "[]") return;
    if (!anew && active && Date.now() - this.#asked < LOOK_EVERY) return;
    this.#asked = Date.now();
    try {
      const rollouts = await this.api.get("/v1/rollouts");
      this.#show(rollouts.filter((each) => each.phase === "running" || each.phase === "stopped"));
    } catch (error) {
      if (error.status === undefined) throw error; // else the connection is lost, as the banner says
    }
  }

  #show(rollouts) {
    const shown = JSON.stringify([rollouts.map(sentence), this.model.mayOperate]);
    if (shown === this.#shown) return;
    this.#shown = rollouts.length ? shown : "[]";
    const box = byId("rollouts-now");
    box.hidden = !rollouts.length;
    box.replaceChildren(...rollouts.map((each) => this.#line(each)));
  }

  #line(rollout) {
    const stopped = rollout.phase === "stopped";
    const mark = h("b", { class: stopped ? "bad" : null }, stopped ? `✕ Rollout ${rollout.id}: ` : `Rollout ${rollout.id}: `);
    const names = rollout.constraints.join(", ");
    const step = (verb, title) => h("button", { type: "button", class: "quiet", click: () => this.#ask(rollout, verb, title) }, title);
    const buttons = [stopped ? step("continue", "Continue") : step("stop", "Stop"), step("back", "Roll back")];
    return h("div", { class: "alerts-now rollout" }, h("span", { title: names }, mark, sentence(rollout)), this.model.mayOperate ? h("span", { class: "buttons" }, buttons) : null);
  }

  #ask(rollout, verb, title) {
    const what = plural(rollout.constraints.length, "constraint", "constraints");
    const lines = {
      stop: "The nodes of the stages so far keep the new definitions; no other node gets them.",
      continue: `It goes on in stage ${rollout.stage} of ${rollout.stages.length}; violations are counted anew.`,
      back: `All nodes go back to the former definitions of ${what}.`,
    };
    const question = { title: `${title}: rollout ${rollout.id}?`, lines: [lines[verb]], yes: title, no: "Leave it", danger: verb === "back" };
    this.confirm(question, async () => {
      await this.api.send("POST", `/v1/rollouts/${rollout.id}/${verb}`, {});
      announce(`Rollout ${rollout.id}: ${title.toLowerCase()}`);
      await this.#look(true);
    });
  }
}

function sentence({ phase, stage, stages, reason, waits_for: waits, holds_for: held, figures, constraints }) {
  const where = `stage ${stage} of ${stages.length}, ${stages[stage - 1].on}`;
  if (phase === "stopped") return `stopped in ${where}: ${reason}`;
  const state = waits || (held === null ? "" : "the gate holds");
  return `${where}: ${plural(constraints.length, "constraint", "constraints")} on ${plural(figures.reachable, "node", "nodes")} of ${figures.nodes}${state ? `; ${state}` : ""}`;
}
