// Light or dark: as the system says, or as was chosen here.

import { byId } from "./dom.js";

const KEPT = "constraint-crdt-theme";
const TURN = { system: "light", light: "dark", dark: "system" };
const GLYPH = { system: "◐", light: "☀", dark: "☾" };
const WORD = { system: "as the system", light: "light", dark: "dark" };

let listeners = [];
let probe = null;
let known = new Map();

export function startTheme() {
  const button = byId("theme");
  let theme = localStorage.getItem(KEPT) ?? "system";
  const show = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = GLYPH[theme] ?? GLYPH.system;
    button.setAttribute("aria-label", `Theme: ${WORD[theme] ?? WORD.system}`);
    button.title = button.getAttribute("aria-label");
    changed();
  };
  button.addEventListener("click", () => {
    theme = TURN[theme] ?? "system";
    if (theme === "system") localStorage.removeItem(KEPT);
    else localStorage.setItem(KEPT, theme);
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  show();
}

// What draws on a canvas asks for the colours again then.
export function onTheme(listener) {
  listeners.push(listener);
}

// The colour that a custom property of the style sheet stands for now, as a canvas takes it.
export function colour(name) {
  let found = known.get(name);
  if (found === undefined) {
    if (probe === null) {
      probe = document.createElement("span");
      probe.hidden = true;
      document.body.append(probe);
    }
    probe.style.color = `var(--${name})`;
    found = getComputedStyle(probe).color;
    known.set(name, found);
  }
  return found;
}

function changed() {
  known = new Map();
  for (const listener of listeners) listener();
}
