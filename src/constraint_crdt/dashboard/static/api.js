// Asking the node. The token, where one is needed, goes into a header and never into an address.

const KEPT = "constraint-crdt-token";
const MOST_TAGS = 200;
const BASE = new URL("..", import.meta.url).pathname.slice(0, -1); // where a proxy shows the page; empty without one

// What the node said when it could not do what was asked; `status` 0: it did not answer.
export class Problem extends Error {
  constructor(detail, status, field = null) {
    super(detail);
    this.status = status;
    this.field = field;
  }
}

export class Api {
  #tags = new Map();
  #asking = null;

  // `askToken(why, optional)` resolves to a token that somebody typed; or to null, where that is allowed, if they would not.
  // `signedIn()`: another token is used from now on.
  constructor(askToken, signedIn) {
    this.askToken = askToken;
    this.signedIn = signedIn;
  }

  // Forget the token.
  signOut() {
    sessionStorage.removeItem(KEPT);
  }

  // What is at `path`; null if `known` and it is what it was at the last call for this path.
  async get(path, { known = false, signal } = {}) {
    const headers = {};
    if (known && this.#tags.has(path)) headers["if-none-match"] = this.#tags.get(path);
    const response = await this.open(path, { headers, signal });
    if (response.status === 304) return null;
    const tag = response.headers.get("etag");
    if (tag) {
      this.#tags.delete(path);
      this.#tags.set(path, tag);
      if (this.#tags.size > MOST_TAGS) this.#tags.delete(this.#tags.keys().next().value);
    }
    return response.json();
  }

  // `why`: the reason of a change, for the audit and the history.
  async send(method, path, body, { why = "" } = {}) {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    if (why) headers["constraint-crdt-why"] = encodeURIComponent(why);
    const response = await this.open(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    return response.json();
  }

  // The answer itself, once it is a good one. Throws `Problem`.
  async open(path, options = {}) {
    for (;;) {
      const token = sessionStorage.getItem(KEPT);
      const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
      let response;
      try {
        response = await fetch(`${BASE}${path}`, { ...options, headers, cache: "no-store" });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Problem("the node does not answer", 0);
      }
      if (response.ok || response.status === 304) return response;
      const found = await problem(response);
      const lacking = response.status === 403 && (response.headers.get("www-authenticate") ?? "").includes("insufficient_scope");
      if (response.status !== 401 && !lacking) throw found;
      const ended = found.message.includes(" ended on ");
      const why = lacking || ended ? `${sentence(found.message)} Give another token.` : token ? "The node does not know this token." : "";
      if (!(await this.#ask(token, why, lacking))) throw found;
    }
  }

  // One dialog, however many requests wait for it. False if nobody gave a token.
  async #ask(refused, why, optional) {
    if (refused !== sessionStorage.getItem(KEPT)) return true; // somebody typed another one meanwhile
    this.#asking ??= this.askToken(why, optional).finally(() => (this.#asking = null));
    const token = await this.#asking;
    if (token !== null && token !== sessionStorage.getItem(KEPT)) {
      sessionStorage.setItem(KEPT, token);
      this.signedIn();
    }
    return token !== null;
  }
}

export const sentence = (text) => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`;

async function problem(response) {
  try {
    const body = await response.json();
    return new Problem(body.detail ?? body.title, response.status, body.field ?? null);
  } catch {
    return new Problem(`the node answered with status ${response.status}`, response.status);
  }
}
