// Making and changing elements. Text goes in as text: nothing that came from the network is ever read as HTML.

export const byId = (id) => document.getElementById(id);

// h("a", {href: "#/", class: "x"}, "text", child, null): an element. A property that is a function listens to that event.
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Sets what differs, so that a screen reader and the layout hear only of what changed.
// A sentence of the node, which has names and commands in `…`.
export const coded = (text) => text.split("`").map((part, place) => (place % 2 ? h("code", null, part) : part));

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// Calls `draw` once in the next frame, however often it was asked for. A hidden page has no frames, and draws nothing.
export function perFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

// A canvas as large as its box, in device pixels: its context in CSS pixels, and the size in them.
export function fitted(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const scale = window.devicePixelRatio || 1;
  const wide = Math.max(1, Math.round(width * scale));
  const high = Math.max(1, Math.round(height * scale));
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

// Other children, with the focus where it was, if the element that had it comes again.
export function replace(box, children) {
  const active = box.contains(document.activeElement) ? document.activeElement : null;
  const focused = active && (active.dataset.focus ? `[data-focus="${CSS.escape(active.dataset.focus)}"]` : active.getAttribute("href") && `[href="${CSS.escape(active.getAttribute("href"))}"]`);
  box.replaceChildren(...children.filter(Boolean));
  if (focused) box.querySelector(focused)?.focus();
}

// Opens a dialog. Once it closes, the focus is where it was, also if that was put in anew meanwhile.
export function openDialog(dialog) {
  const opener = document.activeElement;
  const back = () => {
    if (!opener.isConnected && opener.dataset.focus) document.querySelector(`[data-focus="${CSS.escape(opener.dataset.focus)}"]`)?.focus();
  };
  dialog.addEventListener("close", back, { once: true });
  dialog.showModal();
}

export function announce(text) {
  byId("live").textContent = text;
}
