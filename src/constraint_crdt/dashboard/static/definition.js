// A definition as a node tells it, as a request gives it again, and how two of them differ.
//
// Rules: a field that this page does not show is kept: all that a definition says goes into the request, but for what the node
// itself found out about it (`FOUND`). An end is a time: it does not move because something else is edited.

import { at, duration } from "./format.js";

// What a node adds to a definition in its answer: who made it and when, and what it thinks of it. Its selector is said as `on`.
const FOUND = new Set(["id", "dot", "actor", "added_by", "added_at", "known_since", "expires_at", "expired", "meaning", "on", "selector", "why"]);

const TITLES = {
  when: "Must hold",
  severity: "Severity",
  about: "What it is for",
  on: "Only on",
  until: "Ends",
  for: "For",
  clear_after: "Clear after",
  clear_when: "Clear when",
  if_unknown: "If unknown",
  max_age: "Max age",
  scope: "Judged for",
  mode: "Mode",
  each: "Each",
};

// What holds where nothing is said.
const DEFAULTS = { severity: "warning", for: 0, clear_after: 0, if_unknown: "unknown", scope: "node", mode: "enforce" };
const UNSAID = { ...DEFAULTS, when: null, about: null, on: null, clear_when: null, max_age: null, each: null };
const SECONDS = new Set(["for", "clear_after", "max_age"]);

// The fields of a request that gives this definition again.
export function requestOf(definition) {
  const body = {};
  for (const [field, value] of Object.entries(definition)) if (!FOUND.has(field) && !isDefault(field, value)) body[field] = value;
  if (selectorOf(definition)) body.on = selectorOf(definition);
  if (definition.expires_at !== null && definition.expires_at !== undefined) body.until = moment(definition.expires_at);
  return body;
}

// A request that says every field, also those that are as by default: nothing of an older definition stays by chance.
export const inFull = (body) => ({ ...UNSAID, ...body });

// The definitions in force of an explanation.
export const inForce = (explained) => explained.definitions.filter((each) => !each.expired);

// Which fields of two requests differ: [{field, title, before, after}], as texts; "" for nothing said.
export function differences(before, after) {
  const fields = [...new Set([...Object.keys(TITLES), ...Object.keys(before), ...Object.keys(after)])];
  const found = [];
  for (const field of fields) {
    if (field === "id" || field === "ttl") continue;
    const [old, now] = [shown(field, before[field]), shown(field, after[field])];
    if (old !== now) found.push({ field, title: TITLES[field] ?? field.replaceAll("_", " "), before: old, after: now });
  }
  if (!after.ttl) return found;
  const end = { field: "until", title: TITLES.until, before: shown("until", before.until), after: `in ${duration(after.ttl)}` };
  return [...found.filter((each) => each.field !== "until"), end];
}

// The nodes concerned, in the syntax of selectors; "" for all. (A node of 0.1.0 tells labels only.)
export const selectorOf = (definition) => definition.selector || labelText(definition.on);

export const labelText = (on) => Object.entries(on ?? {}).map(([key, value]) => `${key}=${value}`).join(", ");

function isDefault(field, value) {
  if (value === null || value === undefined || value === "" || value === DEFAULTS[field]) return true;
  return typeof value === "object" && !Object.keys(value).length;
}

function shown(field, value) {
  if (isDefault(field, value)) return field === "until" ? "when it is removed" : field in DEFAULTS ? String(DEFAULTS[field]) + (SECONDS.has(field) ? " s" : "") : "";
  if (field === "until") return at(Date.parse(value) * 1e6);
  if (SECONDS.has(field)) return `${value} s`;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

// ns since the epoch, in ISO 8601 to the microsecond.
function moment(time) {
  const seconds = Math.floor(time / 1e9);
  const micros = Math.min(999999, Math.round((time - seconds * 1e9) / 1000));
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${String(micros).padStart(6, "0")}Z`;
}
