// What is looked at, in the address, so that it can be shared, reloaded and gone back from:
// `#/constraint/ID?q=…&only=violated&severity=critical&sort=id&desc=1&side=budgets`.
//
// Rules: a link that says nothing behind `?` keeps what is filtered and sorted. A filter replaces the entry of the history, a subject
// adds one. What is as by default is left out.

const USUAL = { q: "", only: "", severity: "", sort: "state", desc: "", side: "map", nodes: "node", nodesdesc: "", kind: "", about: "", strip: "600" };

export class Address {
  #view = { ...USUAL };
  #listeners = [];

  constructor() {
    addEventListener("hashchange", () => this.#read());
  }

  // Calls `listener()` once, and whenever something else is looked at.
  follow(listener) {
    this.#listeners.push(listener);
  }

  begin() {
    this.#read();
  }

  // {kind: "constraint" or "node", id}; both null for none.
  get subject() {
    const [, kind, id] = location.hash.match(/^#\/(constraint|node)\/([^?]+)/) ?? [];
    try {
      return kind ? { kind, id: decodeURIComponent(id) } : { kind: null, id: null };
    } catch {
      return { kind: null, id: null };
    }
  }

  get(name) {
    return this.#view[name];
  }

  set(changes) {
    Object.assign(this.#view, changes);
    history.replaceState(null, "", this.#hash());
    this.#tell();
  }

  // Opens a constraint or a node; `kind` null: neither.
  go(kind, id) {
    location.hash = kind === null ? `#/${this.#query()}` : `#/${kind}/${encodeURIComponent(id)}${this.#query()}`;
  }

  #read() {
    if (location.hash && !location.hash.startsWith("#/")) return; // a skip link
    const mark = location.hash.indexOf("?");
    if (mark >= 0) {
      const given = new URLSearchParams(location.hash.slice(mark + 1));
      for (const name of Object.keys(USUAL)) this.#view[name] = given.get(name) ?? USUAL[name];
    } else if (this.#query()) {
      history.replaceState(null, "", this.#hash());
    }
    this.#tell();
  }

  #hash() {
    const path = location.hash.split("?", 1)[0];
    return (path.startsWith("#/") ? path : "#/") + this.#query();
  }

  #query() {
    const given = new URLSearchParams(Object.entries(this.#view).filter(([name, value]) => value !== USUAL[name])).toString();
    return given && `?${given}`;
  }

  #tell() {
    for (const listener of this.#listeners) listener();
  }
}
