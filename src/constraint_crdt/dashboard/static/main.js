// The dashboard: puts the parts together, follows the address, and says whether it is connected.

import { Api } from "./api.js";
import { Detail } from "./detail.js";
import { Dialogs } from "./dialogs.js";
import { byId, h, perFrame, setAttribute, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { Fleet } from "./fleet.js";
import { clockTime, count, duration, percent } from "./format.js";
import { Happenings } from "./happenings.js";
import { Listing } from "./listing.js";
import { Model } from "./model.js";
import { Refresher } from "./refreshing.js";
import { startTheme } from "./theme.js";

const MOST_WAITING = 500; // events

startTheme();
const model = new Model();
const dialogs = new Dialogs((id) => refresher.moved({ constraints: [id] }));
const api = new Api((why, optional) => dialogs.askToken(why, optional), () => signedIn());
dialogs.api = api;
const go = (kind, id) => (location.hash = kind === null ? "#/" : `#/${kind}/${encodeURIComponent(id)}`);
const listing = new Listing(model, (id) => go("constraint", id), () => refresher.look());
const fleet = new Fleet(model, (name) => go("node", name));
const refresher = new Refresher(api, model, () => listing.visible());
const detail = new Detail(api, model, { edit: (row) => dialogs.add(row), remove: (id) => dialogs.remove(id), close: () => go(null) });
new Happenings(model);

// --- events ----------------------------------------------------------------------------------------------------------

let waiting = [];
const tell = perFrame(() => {
  model.addEvents(waiting);
  waiting = [];
});

const feed = new Feed(
  api,
  (kind, data) => {
    if (kind === "state") {
      refresher.moved(data);
      return;
    }
    if (kind === "gap" || kind === "dropped") refresher.everything();
    const event = { kind, time: Date.now() * 1e6, ...data };
    if (kind === "gap" && data.missed) event.detail = `${count(data.missed)} of them`;
    refresher.moved({ constraints: event.constraint ? [event.constraint] : [], nodes: event.node ? [event.node] : [] });
    if (event.constraint && event.constraint === subject().id) detail.refresh();
    waiting.push(event);
    if (waiting.length > MOST_WAITING) waiting.shift(); // a hidden page has no frame in which to show them
    tell();
  },
  (connection) => {
    const returned = connection.connected && !model.connection.connected;
    model.setConnection(connection);
    if (returned) {
      refresher.everything();
      signedIn();
    }
  },
);

// --- who is signed in ------------------------------------------------------------------------------------------------

async function signedIn() {
  try {
    model.setSession(await api.get("/v1/session"));
  } catch (error) {
    if (error.status === undefined) throw error; // else the connection is lost, and this is asked again with the next one
  }
}

const MAY = { read: "may read", measure: "may read and measure", operate: "may change constraints" };

model.on("session", () => {
  const { name, role, node_role: nodeRole, may } = model.session;
  const alone = name === "local"; // a node without tokens
  const limit = may === role ? "" : `; this node is ${nodeRole === "observer" ? "an" : "a"} ${nodeRole} of the fleet`;
  byId("session").hidden = alone && !limit;
  setText(byId("session-name"), `${name}: ${MAY[may]}${limit}`);
  byId("sign-out").hidden = alone;
  byId("add").disabled = !model.mayOperate;
  setAttribute(byId("add"), "title", model.mayOperate ? null : `${name} ${MAY[may]} only${limit}`);
});
byId("sign-out").addEventListener("click", () => {
  api.signOut();
  location.reload(); // what was shown is not for the next reader
});

// --- what the address says -------------------------------------------------------------------------------------------

function subject() {
  const [, kind, id] = location.hash.match(/^#\/(constraint|node)\/(.+)$/) ?? [];
  try {
    return kind ? { kind, id: decodeURIComponent(id) } : { kind: null, id: null };
  } catch {
    return { kind: null, id: null };
  }
}

let opener = null;

function follow() {
  if (location.hash && !location.hash.startsWith("#/")) return; // a skip link
  const { kind, id } = subject();
  if (kind !== null && byId("detail").hidden) opener = document.activeElement;
  listing.table.select(kind === "constraint" ? id : null);
  fleet.select(kind === "node" ? id : null);
  detail.show(kind, id);
  if (kind === null) {
    if (opener?.isConnected) opener.focus();
    opener = null;
  }
}

addEventListener("hashchange", follow);

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, dialog")) return;
  event.preventDefault();
  byId("search").focus();
  byId("search").select();
});
byId("add").addEventListener("click", () => dialogs.add());
byId("retry").addEventListener("click", () => (started ? feed.retry() : location.reload()));

// --- the fleet in numbers, and the connection ----------------------------------------------------------------------------

function facts() {
  const { status } = model;
  if (!status) return;
  const { violated } = model.tally();
  let [satisfied, broken] = [0, 0];
  for (const [held, violations] of Object.values(model.lately)) {
    satisfied += held;
    broken += violations;
  }
  const away = status.known - status.peers - 1;
  const numbers = [
    ["Live nodes", `${count(status.peers + 1)}/${count(status.known)}`, away > 0 ? "warn" : ""],
    ["Constraints", count(status.constraints), ""],
    ["Violated now", count(violated), violated ? "bad" : "good"],
    ["Unknown here", count(status.unknown_here), status.unknown_here ? "warn" : ""],
    ["Judgements satisfied recently", satisfied + broken > 0.05 ? percent(satisfied / (satisfied + broken)) : "–", ""],
    ["Agree", `${count(status.agreeing)}/${count(status.peers + 1)}`, status.agreeing < status.peers + 1 ? "warn" : ""],
  ];
  const box = byId("facts");
  if (!box.childElementCount) box.append(...numbers.map(([term]) => h("div", null, h("dt", null, term), h("dd"))));
  numbers.forEach(([, value, kind], index) => {
    setText(box.children[index].lastChild, value);
    setAttribute(box.children[index], "class", kind || null);
  });
  setText(byId("node-name"), status.node);
  const open = { none: ": links are not protected", mixed: ": nodes without a certificate are accepted" }[status.links] || "";
  setText(byId("fleet-name"), status.trouble ? `writes are refused: ${status.trouble}` : `fleet ${status.fleet}${open}`);
  document.title = `${violated ? `(${violated}) ` : ""}${status.node} · constraint-crdt`;
}
model.on("status nodes rows", perFrame(facts));

function connection() {
  const { connected, since, next, why } = model.connection;
  const lost = !connected && since !== null;
  document.body.classList.toggle("stale", lost);
  byId("banner").hidden = !lost;
  if (!lost) return;
  const wait = Math.max(0, Math.ceil((next - Date.now()) / 1000));
  const seconds = Math.round((Date.now() - since) / 1000);
  setText(byId("banner-text"), `Not connected since ${clockTime(since)} (${duration(seconds)}): ${why}. What you see is as of then. Trying again${wait ? ` in ${wait} s` : ""}…`);
}
model.on("connection", connection);
setInterval(connection, 1000);

// --- begin -----------------------------------------------------------------------------------------------------------

let started = false;

async function begin() {
  for (let pause = 500; ; pause = Math.min(pause * 2, 8000)) {
    try {
      await refresher.begin();
      await signedIn();
      break;
    } catch (error) {
      if (error.status === undefined) throw error;
      model.setConnection({ connected: false, since: model.connection.since ?? Date.now(), next: Date.now() + pause, why: error.message });
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
  started = true;
  follow();
  requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("fleet-shown")));
  refresher.run();
  feed.run();
}

begin();
