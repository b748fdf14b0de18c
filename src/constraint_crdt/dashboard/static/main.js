// The dashboard: puts the parts together, follows the address, and says whether it is connected.

import { Address } from "./address.js";
import { Alerts } from "./alerts.js";
import { Api } from "./api.js";
import { ConstraintPage } from "./constraint.js";
import { Detail } from "./detail.js";
import { Dialogs } from "./dialogs.js";
import { announce, byId, perFrame, setAttribute, setText } from "./dom.js";
import { Editor } from "./editor.js";
import { EventList } from "./event_list.js";
import { Feed } from "./feed.js";
import { Fleet } from "./fleet.js";
import { clockTime, count, duration } from "./format.js";
import { Listing } from "./listing.js";
import { Model } from "./model.js";
import { NodePage } from "./node.js";
import { Panels } from "./panels.js";
import { Refresher } from "./refreshing.js";
import { Rollouts } from "./rollout.js";
import { startTheme } from "./theme.js";
import { Truth } from "./truth.js";

const MOST_WAITING = 500; // events

startTheme();
const model = new Model();
const address = new Address();
const dialogs = new Dialogs();
const api = new Api((why, optional) => dialogs.askToken(why, optional), () => signedIn());
const go = (kind, id) => address.go(kind, id);
const written = (id) => {
  refresher.moved({ constraints: [id] });
  detail.refresh();
};
const editor = new Editor(api, written);
const listing = new Listing(model, address, (id) => go("constraint", id), () => refresher.look());
const fleet = new Fleet(model, address, (name) => go("node", name));
const panels = new Panels(api, model, address, (tab) => {
  fleet.look();
  refresher.soon(tab);
});
const refresher = new Refresher(api, model, () => listing.visible(), () => panels.tab);
const confirm = (question, act) => dialogs.confirm(question, act);
const reason = (question, act) => dialogs.reason(question, act);
const detail = new Detail(
  model,
  {
    constraint: new ConstraintPage(api, model, { edit: (id, dot) => editor.edit(id, dot).catch(unread), remove, confirm, reason, written }),
    node: new NodePage(api, model, { confirm, moved: () => refresher.everything() }),
  },
  () => go(null),
);
new Alerts(api, model, { mark: (number, tone) => panels.mark("alerts", number, tone), open: () => panels.open("alerts"), confirm, reason, moved: () => refresher.soon("alerts") });
new EventList(model, address);
new Truth(model, () => panels.open("doctor"));
new Rollouts(api, model, confirm);

function remove(id) {
  const lines = [`No node of the fleet will enforce ${id} any more. Its counts stay.`];
  confirm({ title: "Remove this constraint?", lines, yes: "Remove it", no: "Keep it", danger: true }, async () => {
    await api.send("DELETE", `/v1/constraints/${encodeURIComponent(id)}`);
    announce(`${id} is removed`);
    written(id);
  });
}

// The node did not answer: the banner says so.
function unread(error) {
  if (error.status === undefined) throw error;
}

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
    if (kind.startsWith("alert") || kind.startsWith("silence")) refresher.soon("alerts");
    refresher.moved({ constraints: event.constraint ? [event.constraint] : [], nodes: event.node ? [event.node] : [] });
    if (event.constraint && event.constraint === address.subject.id) detail.refresh();
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

let opener = null;

function follow() {
  const { kind, id } = address.subject;
  if (kind !== null && byId("detail").hidden) opener = document.activeElement;
  listing.table.select(kind === "constraint" ? id : null);
  fleet.select(kind === "node" ? id : null);
  const open = !byId("detail").hidden;
  detail.show(kind, id);
  if (kind === null && open) {
    if (opener?.isConnected) opener.focus();
    opener = null;
  }
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, dialog")) return;
  event.preventDefault();
  byId("search").focus();
  byId("search").select();
});
byId("add").addEventListener("click", () => editor.add());
byId("retry").addEventListener("click", () => (started ? feed.retry() : location.reload()));

// --- the name of it, and the connection ----------------------------------------------------------------------------------

function name() {
  const { status } = model;
  if (!status) return;
  const { violated } = model.tally();
  setText(byId("node-name"), status.node);
  const open = { none: ": links are not protected", mixed: ": nodes without a certificate are accepted" }[status.links] || "";
  setText(byId("fleet-name"), `fleet ${status.fleet}${open}`);
  document.title = `${violated ? `(${count(violated)}) ` : ""}${status.node} · constraint-crdt`;
}
model.on("status rows", perFrame(name));

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
  address.follow(follow);
  address.begin();
  requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("fleet-shown")));
  refresher.run();
  feed.run();
}

begin();
