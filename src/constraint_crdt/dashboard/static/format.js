// Numbers, shares and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

const MS = 1e6; // ns

export const count = (number) => (Math.abs(number) < 100000 ? whole.format(number) : compact.format(number));

export const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;

// 0.0312 → "3.1 %". What is not quite all is never rounded up to all, nor what is not quite nothing down to nothing.
export function percent(share) {
  if (share === null || share === undefined) return "–";
  const hundred = share * 100;
  if (hundred > 0 && hundred < 0.1) return "< 0.1 %";
  if (hundred < 100 && hundred > 99.9) return "> 99.9 %";
  return `${hundred === Math.round(hundred) || hundred >= 99.95 ? hundred.toFixed(0) : hundred.toFixed(1)} %`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// `time`: ns since the epoch, as the API has it.
export const at = (time) => {
  const ms = time / MS;
  return Math.abs(Date.now() - ms) < 43200e3 ? clock.format(ms) : day.format(ms);
};

export const ago = (time) => {
  const seconds = (Date.now() - time / MS) / 1000;
  return seconds < 2 ? "just now" : `${duration(seconds)} ago`;
};

export const clockTime = (ms) => clock.format(ms);

// How a definition is evaluated beyond its `when`: the fields other than defaults, by name.
export function shownFields(definition) {
  const shown = {
    scope: definition.scope === "fleet" && "the fleet",
    for: definition.for && `${definition.for} s`,
    "clear after": definition.clear_after && `${definition.clear_after} s`,
    "clear when": definition.clear_when,
    "if unknown": definition.if_unknown !== "unknown" && definition.if_unknown,
    "max age": definition.max_age !== null && `${definition.max_age} s`,
    mode: definition.mode !== "enforce" && definition.mode,
    each: definition.each,
    meaning: definition.meaning && "needs a later version of constraint-crdt",
  };
  return Object.fromEntries(Object.entries(shown).filter(([, text]) => text));
}

// A share of the time, to the hundredth of a percent: 0.9993 → "99.93 %".
export function ofTime(share) {
  if (share === null || share === undefined) return "–";
  if (share >= 0.99995 && share < 1) return "> 99.99 %";
  return share > 0 && share < 0.00005 ? "< 0.01 %" : `${(100 * share).toFixed(2)} %`;
}

// A verdict state with its clock: "pending 12 s of 30 s".
export function stateClock({ state, since }, definition) {
  if (state === "pending" && definition?.for && since) {
    return `pending ${duration(Math.min((Date.now() - since / MS) / 1000, definition.for))} of ${definition.for} s`;
  }
  if (state === "clearing" && definition?.clear_after) return `clearing (${definition.clear_after} s)`;
  return since ? `${state} since ${at(since)} (${duration((Date.now() - since / MS) / 1000)})` : state;
}

// The values of a judgement with the margin: "speed_mps = 9.0, 7.5 above the limit (500 %); distance_m = 0.3".
export function measured({ values, margin, margin_share: part, margin_variable: variable }) {
  const texts = Object.entries(values).filter(([name]) => margin === null || name !== variable).map(([name, text]) => `${name} = ${text}`);
  if (margin === null) return texts.join("; ");
  const name = variable in values ? `${variable} = ${values[variable]}` : variable;
  return [[name, distance(values[variable], margin, part)].filter(Boolean).join(", "), ...texts].join("; ");
}

function distance(text, margin, part) {
  if (margin === 0) return "at the limit";
  const places = part === null ? "" : ` (${significant(100 * Math.abs(part), 3)} %)`;
  return `${significant(Math.abs(margin), 4)} ${side(Number(text ?? NaN), margin, part) ?? (margin > 0 ? "within" : "beyond")} the limit${places}`;
}

// Where the value is, seen from the threshold: found from the size of the threshold; null if neither or both directions fit.
function side(value, margin, part) {
  const threshold = part ? Math.abs(margin / part) : NaN;
  const fits = (found) => Math.abs(Math.abs(found) - threshold) <= 1e-9 * threshold;
  const [above, below] = [fits(value - Math.abs(margin)), fits(value + Math.abs(margin))];
  return above === below ? null : above ? "above" : "below";
}

// The threshold that a judgement was measured against, as a text; null where value and margin do not tell it.
export function limitOf({ values, margin, margin_share: part, margin_variable: variable }) {
  const value = Number(values[variable] ?? NaN);
  const where = margin === 0 ? "at" : margin === null ? null : side(value, margin, part ?? (Math.abs(Math.abs(value) - Math.abs(margin)) < 1e-9 * Math.abs(value) ? Infinity : null));
  if (!where) return null;
  const limit = where === "at" ? value : where === "above" ? value - Math.abs(margin) : value + Math.abs(margin);
  return significant(limit, 6);
}

// A value and its limit: "speed_mps 9.1, limit 1.5"; several variables without a margin: "door = open; racks = [1]".
export function situation(verdict) {
  const limit = limitOf(verdict);
  if (limit === null) return measured(verdict);
  const number = Number(verdict.values[verdict.margin_variable]);
  return `${verdict.margin_variable} ${significant(number, 4)}, limit ${limit}`;
}

// "since 12:52:03 (3 min)"
export const sinceWords = (time) => `since ${at(time)} (${duration((Date.now() - time / MS) / 1000)})`;

const significant = (number, digits) => String(Number(number.toPrecision(digits)));

// A half-life as a word: 60 → "1 min".
export const span = (seconds) => (seconds % 3600 === 0 ? `${seconds / 3600} h` : seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`);
