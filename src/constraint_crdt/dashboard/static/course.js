// The course of a constraint: value and limit, or the margin, over time on a node; and the spells of each node as a timeline.
//
// Rules: the node that answers has its own samples; of another node the values are those that it told at its turns, which is said. The
// elements stay as long as the page shows the same constraint, so nothing flickers when new samples come. The drawings say
// nothing that the texts beside them do not say. uPlot is loaded when there is something to draw.

import { h, setAttribute, setText } from "./dom.js";
import { at, clockTime, duration, plural } from "./format.js";
import { link } from "./parts.js";
import { colour, onTheme } from "./theme.js";

const RANGES = [["10 min", 600], ["1 h", 3600], ["6 h", 21600], ["all", Infinity]]; // s
const HEIGHT = 140; // px
const MOST_NODES = 12;
const WORDS = { holds: "held", pending: "pending", violated: "violated", clearing: "violated", unknown: "unknown", off: "off" };

let library = null;
const charts = new Set();

onTheme(() => charts.forEach((chart) => chart.repaint()));

export class Course {
  #series = null;
  #worst = []; // the nodes on which it is violated the longest
  #chart = null;
  #range = 3600;
  #shows = "value";
  #node = null; // that is drawn; null: not chosen yet

  constructor(id) {
    this.id = id;
    this.place = h("div", { class: "chart", "aria-hidden": "true" });
    this.words = h("p", { class: "note" });
    this.timeline = h("div", { class: "timeline-rows" });
    this.choice = h("select", { "data-focus": "course node", change: () => this.#choose(this.choice.value) });
    const range = ([title, seconds]) => h("button", { type: "button", "data-focus": `range ${title}`, "data-range": seconds, "aria-pressed": String(seconds === this.#range), click: () => this.#zoom(seconds) }, title);
    const shows = (what) => h("button", { type: "button", "data-focus": `shows ${what}`, "data-shows": what, "aria-pressed": String(what === this.#shows), click: () => this.#switch(what) }, what[0].toUpperCase() + what.slice(1));
    this.box = h(
      "section",
      { class: "course" },
      h("h3", null, "Course"),
      h("div", { class: "line" }, h("div", { class: "switch", role: "group", "aria-label": "How far back" }, RANGES.map(range)), h("div", { class: "switch", role: "group", "aria-label": "What is drawn" }, ["value", "margin"].map(shows)), h("label", { class: "filter" }, h("span", { class: "hidden" }, "Node whose course is drawn"), this.choice)),
      this.place,
      this.words,
      this.timeline,
    );
  }

  // It is in the document, and can be measured. `series`: what the node keeps now; `row`: of the list.
  drawn(series, row) {
    this.#series = series;
    this.#worst = row?.data.violated_now ? row.data.longest.map((each) => each.node) : [];
    this.#draw();
  }

  #zoom(seconds) {
    this.#range = seconds;
    for (const each of this.box.querySelectorAll("[data-range]")) setAttribute(each, "aria-pressed", Number(each.dataset.range) === seconds);
    this.#draw();
  }

  #switch(what) {
    this.#shows = what;
    for (const each of this.box.querySelectorAll("[data-shows]")) setAttribute(each, "aria-pressed", each.dataset.shows === what);
    this.#chart?.destroy();
    this.#chart = null;
    this.#draw();
  }

  #choose(node) {
    this.#node = node;
    this.#chart?.destroy();
    this.#chart = null;
    this.#draw();
  }

  // The nodes of which something can be drawn, and the one that is: as chosen, else where it is violated, else this node.
  #choices({ points, nodes, node }) {
    const told = nodes.filter((each) => each.node !== node && each.spells.some((spell) => spell.margin !== null)).map((each) => each.node);
    const names = [...(points.length || !told.length ? [node] : []), ...told];
    const seen = names.join("\n");
    if (this.choice.dataset.names !== seen) {
      this.choice.dataset.names = seen;
      this.choice.replaceChildren(...names.map((name) => h("option", { value: name }, name === node ? `${name}, sampled` : name)));
    }
    const drawn = [this.#node, ...(this.#worst.includes(node) ? [node] : this.#worst), names[0]].find((each) => names.includes(each));
    this.choice.value = drawn;
    this.choice.parentElement.hidden = names.length < 2;
    return drawn;
  }

  #draw() {
    const now = Date.now() / 1000;
    const series = { points: [], nodes: [], node: "", variable: null, ...this.#series };
    const drawn = this.#choices(series);
    const own = drawn === series.node;
    const { nodes } = series;
    const variable = series.variable ?? numberIn(nodes);
    const points = own ? series.points : turnsOf(nodes.find((each) => each.node === drawn), variable, series.points.at(-1)?.limit ?? null, now);
    const first = Math.min(now - 60, ...points.slice(0, 1).map((each) => each.time / 1e9), ...nodes.flatMap(({ spells }) => spells.slice(0, 1).map((each) => each.since / 1e9)));
    const from = Math.max(first, now - this.#range);
    const before = own ? [] : points.filter((each) => each.time / 1e9 < from).slice(-1); // what a node told last holds until its next turn
    const seen = [...before.map((each) => ({ ...each, time: from * 1e9 })), ...points.filter((each) => each.time / 1e9 >= from)];
    this.#spells(nodes, from, now);
    this.place.hidden = seen.length < 2;
    setText(this.words, said(seen, drawn, variable, own));
    if (seen.length > 1) this.#plot(seen, from, now, variable, own);
  }

  async #plot(points, from, now, variable, own) {
    library ??= import("./uplot.js");
    const { uPlot } = await library;
    const value = this.#shows === "value";
    const lines = value ? [points.map((each) => each.value), points.map((each) => each.limit)] : [points.map((each) => each.margin), points.map(() => 0)];
    const data = [points.map((each) => each.time / 1e9), ...lines];
    if (this.#chart === null) {
      this.#chart = new Chart(uPlot, this.place, value ? variable : "margin", value ? "limit" : "at the limit", own);
    }
    this.#chart.show(data, from, now);
  }

  #spells(nodes, from, now) {
    const end = (spell) => (spell.until === null ? now : spell.until / 1e9);
    const lastBad = ({ spells }) => Math.max(0, ...spells.filter((each) => WORDS[each.state] === "violated").map(end));
    const sorted = [...nodes].sort((a, b) => lastBad(b) - lastBad(a) || (a.node < b.node ? -1 : 1));
    const row = ({ node, live, spells }) => {
      const bar = h("span", { class: "spells", "aria-hidden": "true" });
      const seen = spells.filter((each) => end(each) > from);
      for (const spell of seen) {
        const start = Math.max(spell.since / 1e9, from);
        const part = h("i", { class: spell.state, title: `${WORDS[spell.state]} ${at(spell.since)} to ${spell.until === null ? "now" : at(spell.until)}` });
        part.style.left = `${(100 * (start - from)) / (now - from)}%`;
        part.style.width = `${Math.max(0.4, (100 * (end(spell) - start)) / (now - from))}%`;
        bar.append(part);
      }
      return h("div", { class: "timeline-row", "data-node": node }, link("node", node), bar, h("small", null, spellWords(seen, end, live)));
    };
    const more = sorted.length - MOST_NODES;
    this.timeline.replaceChildren(...sorted.slice(0, MOST_NODES).map(row), more > 0 ? h("p", { class: "note" }, `and ${plural(more, "node", "nodes")} more`) : "");
  }
}

// One chart of uPlot, in the colours of the theme, as wide as its box.
class Chart {
  // `sampled`: false for values of which only the turns are known, which are drawn as steps with a point at each.
  constructor(uPlot, place, name, limit, sampled) {
    this.place = place;
    const paint = (name) => () => colour(name);
    const value = (_, number) => (number === null || number === undefined ? "" : String(Number(number.toPrecision(6))));
    const axis = { stroke: paint("muted"), grid: { stroke: paint("line"), width: 1 }, ticks: { stroke: paint("line"), width: 1 }, font: "11px system-ui, sans-serif" };
    this.plot = new uPlot(
      {
        width: Math.max(place.clientWidth, 120),
        height: HEIGHT,
        cursor: { y: false, drag: { x: false, y: false } },
        legend: { show: true, live: true },
        scales: { x: { time: true, range: () => [this.from, this.now] } },
        axes: [{ ...axis, values: (_, times) => times.map((time) => clockTime(time * 1000).slice(0, this.now - this.from > 600 ? 5 : 8)), space: 70 }, { ...axis, size: 46 }],
        series: [
          { label: "", value: (_, time) => (time === null ? "" : clockTime(time * 1000)) },
          { label: name, value, stroke: paint("link"), width: 2, points: { show: !sampled, size: 6 }, ...(sampled ? {} : { paths: uPlot.paths.stepped({ align: 1 }) }) },
          { label: limit, value, stroke: paint("bad"), width: 1.5, dash: [5, 4], points: { show: false } },
        ],
      },
      [[], [], []],
      place,
    );
    charts.add(this);
    this.observer = new ResizeObserver(() => place.clientWidth && this.plot.setSize({ width: place.clientWidth, height: HEIGHT }));
    this.observer.observe(place);
  }

  show(data, from, now) {
    [this.from, this.now] = [from, now];
    this.plot.setData(data);
  }

  repaint() {
    this.plot.redraw(false);
  }

  destroy() {
    charts.delete(this);
    this.observer.disconnect();
    this.plot.destroy();
  }
}

// The first variable with a number among the values told at turns.
function numberIn(nodes) {
  for (const { spells } of nodes) {
    for (const { values, margin } of spells) {
      const found = margin === null ? undefined : Object.keys(values).find((name) => Number.isFinite(Number(values[name])));
      if (found !== undefined) return found;
    }
  }
  return null;
}

// What a node told at its turns, as points; the last value is drawn up to now.
function turnsOf({ spells } = { spells: [] }, variable, limit, now) {
  const points = spells.map(({ since, values, margin }) => {
    const value = variable !== null && Number.isFinite(Number(values[variable] ?? NaN)) ? Number(values[variable]) : null;
    const near = margin === null || value === null ? [] : [value + margin, value - margin];
    const fits = near.find((each) => limit !== null && Math.abs(each - limit) <= 1e-9 * Math.max(1, Math.abs(limit)));
    return { time: since, value, limit: fits ?? null, margin };
  });
  const last = points.at(-1);
  return last ? [...points, { ...last, time: now * 1e9 }] : [];
}

function said(points, node, variable, own) {
  const margins = points.map((each) => each.margin).filter((each) => each !== null);
  if (!margins.length) return own ? "No margin was sampled on this node in this time." : `${node} told no margin in this time.`;
  const worst = points.reduce((a, b) => ((b.margin ?? Infinity) < (a.margin ?? Infinity) ? b : a));
  const short = (number) => Number(number.toPrecision(4));
  const lowest = worst.value === null ? `margin ${short(worst.margin)}` : `${variable} ${short(worst.value)}${worst.limit === null ? "" : `, limit ${short(worst.limit)}`}`;
  const known = own ? plural(points.length, "sample", "samples") : `as told at ${plural(points.length - 1, "turn", "turns")}`;
  return `On ${node}, ${known}: closest to the limit, or furthest beyond, ${lowest} at ${at(worst.time)}.`;
}

function spellWords(spells, end, live) {
  const bad = spells.filter((each) => WORDS[each.state] === "violated");
  const all = bad.reduce((sum, each) => sum + end(each) - each.since / 1e9, 0);
  const last = spells.at(-1);
  const now = last ? `${WORDS[last.state] === "held" ? "holds" : WORDS[last.state]} since ${at(last.since)}` : "";
  return [bad.length ? `${plural(bad.length, "violation", "violations")}, ${duration(all)}` : "no violation", now, live ? "" : "not live"].filter(Boolean).join("; ");
}
