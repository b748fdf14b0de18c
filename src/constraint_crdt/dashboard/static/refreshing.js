// Keeping the model up to date: what to ask the node for, and when.
//
// Rules: what an event names is asked for at once, and nothing else. If too much moves to be named, what is on the screen is asked
// for each second and everything now and then. One request for rows at a time, so that a busy node is not pressed; a page that
// nobody looks at asks for nothing, and for everything once it is looked at again.

const IDS_AT_ONCE = 50;
const FIRST_PAGE = 60;
const URGENT = 250; // of what is violated or unknown, at first: what is wrong is never behind the first page
const PAGE = 500;
const ROWS_EVERY = 150; // ms between two requests for rows that moved
const LOOK_EVERY = 1000; // ms between two looks at what is on the screen while many move
const REST_EVERY = 3000; // … and while nothing is said to move: rates decay and evidence comes in all the same
const SWEEP_EVERY = 20000; // ms between two looks at everything while many move
const STATUS_EVERY = 700;
const STATUS_AT_LEAST_EVERY = 2000; // no event names the troubles that peers tell
const MANY_NODES = 100;
const NODES = "/v1/nodes?limit=10000";
const TURNS = "/v1/turns?last=200";

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Refresher {
  #moved = new Set();
  #many = false;
  #lookedAt = 0;
  #sweptAt = 0;
  #wake = null;
  #dirty = { status: true, nodes: true, alerts: true, budgets: true, turns: true };

  // `visible()`: the ids of the constraints that are on the screen. `tab()`: the tab that is.
  constructor(api, model, visible, tab) {
    Object.assign(this, { api, model, visible, tab });
  }

  // The first look: enough for the first screen.
  async begin() {
    const [status, nodes, lately, rows, urgent] = await Promise.all(
      ["/v1/status", NODES, "/v1/lately", `/v1/overview?limit=${FIRST_PAGE}`, `/v1/urgent?limit=${URGENT}`].map((path) => this.api.get(path)),
    );
    this.model.putRows(rows);
    this.model.putRows(urgent);
    this.model.urgentKnown = urgent.next === null;
    this.model.setNodes(nodes);
    this.model.setLately(lately);
    this.model.setStatus(status);
  }

  // Keeps everything fresh, for ever.
  run() {
    this.#keepRows();
    this.#keep("status", STATUS_EVERY, STATUS_AT_LEAST_EVERY, async () => this.#took("setStatus", await this.api.get("/v1/status", { known: true })));
    this.#keep("nodes", () => (this.model.nodes.size > MANY_NODES ? 4000 : 700), 10000, async () => {
      this.#took("setNodes", await this.api.get(NODES, { known: true }));
      this.#took("setLately", await this.api.get("/v1/lately", { known: true }));
    });
    this.#keep("alerts", STATUS_EVERY, () => (this.tab() === "alerts" || this.model.firing.length ? 2000 : 5000), async () => this.#took("setAlerts", await Promise.all([this.api.get("/v1/alerts"), this.api.get("/v1/silences")])));
    this.#keep("budgets", STATUS_EVERY, () => (this.tab() === "budgets" ? 1500 : 15000), async () => this.#took("setBudgets", await this.api.get("/v1/budgets", { known: true })));
    this.#keep("turns", () => (this.model.nodes.size > MANY_NODES ? 3000 : 700), 10000, async () => this.#took("setTurns", await this.api.get(TURNS, { known: true })));
    document.addEventListener("visibilitychange", () => document.hidden || this.everything());
  }

  // The node said that something moved. `constraints`, `nodes`: ids, or null for many.
  moved({ constraints = [], nodes = [] }) {
    this.#dirty.status = this.#dirty.turns = true;
    if (nodes === null || nodes.length) this.#dirty.nodes = true;
    if (constraints === null) this.#many = true;
    else for (const id of constraints) this.#moved.add(id);
    if (this.#moved.size > 4 * IDS_AT_ONCE) {
      this.#many = true;
      this.#moved.clear();
    }
    this.#wake?.();
  }

  // Nothing that is known can be relied on.
  everything() {
    this.#sweptAt = 0;
    this.#lookedAt = 0;
    this.#dirty.alerts = this.#dirty.budgets = true;
    this.moved({ constraints: null, nodes: null });
  }

  // Ask for this soon: alerts or budgets.
  soon(what) {
    this.#dirty[what] = true;
  }

  // Look at what is on the screen now: it was scrolled to.
  look() {
    this.#lookedAt = Math.min(this.#lookedAt, Date.now() - REST_EVERY + ROWS_EVERY);
    this.#wake?.();
  }

  #took(setter, report) {
    if (report !== null) this.model[setter](report);
  }

  async #keep(what, every, atLeastEvery, ask) {
    let asked = 0;
    for (;;) {
      await sleep(typeof every === "function" ? every() : every);
      if (document.hidden || !this.model.connection.connected) continue;
      const rest = typeof atLeastEvery === "function" ? atLeastEvery() : atLeastEvery;
      if (!this.#dirty[what] && Date.now() - asked < rest) continue;
      this.#dirty[what] = false;
      asked = Date.now();
      if (!(await quietly(ask))) this.#dirty[what] = true;
    }
  }

  async #keepRows() {
    for (;;) {
      await this.#untilDue();
      if (document.hidden || !this.model.connection.connected) {
        await sleep(ROWS_EVERY);
        continue;
      }
      const taken = await quietly(async () => {
        if (this.#moved.size) await this.#ask(this.#take());
        if (this.#isLookDue()) {
          this.#lookedAt = Date.now();
          await this.#ask(this.visible());
        }
        if (this.#many && Date.now() - this.#sweptAt >= SWEEP_EVERY) await this.#sweep();
      });
      if (!taken) {
        this.#many = true; // what was asked for is not known
        this.#sweptAt = 0;
      }
      await sleep(taken ? ROWS_EVERY : LOOK_EVERY);
    }
  }

  #isLookDue() {
    const bare = this.visible().some((id) => this.model.rows.get(id)?.covered === null);
    return Date.now() - this.#lookedAt >= (bare ? 2 * ROWS_EVERY : this.#many ? LOOK_EVERY : REST_EVERY);
  }

  async #untilDue() {
    if (this.#moved.size) return;
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, LOOK_EVERY / 2);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = null;
  }

  #take() {
    const ids = [...this.#moved].slice(0, IDS_AT_ONCE);
    for (const id of ids) this.#moved.delete(id);
    return ids;
  }

  async #ask(ids) {
    for (let start = 0; start < ids.length; start += IDS_AT_ONCE) {
      const some = ids.slice(start, start + IDS_AT_ONCE);
      const report = await this.api.get(`/v1/overview?${some.map((id) => `id=${encodeURIComponent(id)}`).join("&")}`);
      this.model.putRows(report, some);
    }
  }

  // All rows, a page at a time; between the pages, what moved meanwhile.
  async #sweep() {
    const began = Date.now();
    this.#sweptAt = began;
    this.#many = false;
    let after = null;
    do {
      const report = await this.api.get(`/v1/overview?limit=${PAGE}${after === null ? "" : `&after=${encodeURIComponent(after)}`}`);
      this.model.putRows(report);
      after = report.next;
      if (this.#moved.size) await this.#ask(this.#take());
    } while (after !== null);
    this.model.dropUnseen(began);
  }
}

// False if the node did not answer, or not well. The feed finds out by itself whether the node is gone, and says so.
async function quietly(ask) {
  try {
    await ask();
    return true;
  } catch (error) {
    if (error.status === undefined) throw error;
    return false;
  }
}
