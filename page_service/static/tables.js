// Side by side, and where the time went.

import { element } from "./elements.js";
import { fairness, placesOf } from "./words.js";

const ROWS = [
  ["tokens of the files", ({ finished }) => finished.tokens.before],
  ["kept by the encoder", ({ finished }) => finished.tokens.after],
  ["after the last pruning layer", ({ finished }) => finished.pruning.at(-1)?.after ?? finished.tokens.after],
  ["average over the layers", ({ finished }) => `${finished.tokens.average} (${share(finished.tokens)})`],
  ["where the tokens were", (column) => placesOf(column).join("; ")],
  ["time to the first token", ({ finished }) => `${finished.ttft_ms} ms`],
  ["of it, finding the tokens", ({ finished }) => `${finished.times.find_ms} ms`],
  ["of it, waiting for the engine", ({ finished }) => `${finished.times.wait_ms} ms`],
  ["of it, reading the prompt", ({ finished }) => `${finished.times.prefill_ms} ms`],
  ["the whole answer, in the decoder", ({ finished }) => `${finished.total_ms} ms`],
  ["prompt that the decoder still had", ({ finished }) => (finished.tokens.reused === null ? "not told" : `${finished.tokens.reused} of ${finished.tokens.prompt} tokens`)],
  ["answer", ({ finished }) => start(finished.text.trim()) || "(nothing)"],
];
const START = 160; // characters of an answer; the whole of it stands above
const PARTS = /^of it, /;

export function sideBySide(chosen, plain) {
  const section = document.getElementById("side");
  section.hidden = !(chosen?.finished || plain?.finished);
  document.getElementById("side-chosen").textContent = chosen?.title ?? "";
  document.getElementById("side-fair").textContent = fairness(chosen, plain);
  const told = (column, of) => (column?.finished ? String(of(column)) : "–");
  document.getElementById("side-rows").replaceChildren(...ROWS.map(([head, of]) => element(
    "tr", { class: PARTS.test(head) ? "part" : null }, element("th", { scope: "row", class: "narrow" }, head), element("td", {}, told(chosen, of)), element("td", {}, told(plain, of)),
  )));
}

// A waterfall for each answer that is whole, on one axis.
export function waterfalls(columns) {
  const whole = columns.filter((column) => column?.finished);
  document.getElementById("trace").hidden = whole.length === 0;
  const end = Math.max(0.01, ...whole.flatMap(({ finished }) => finished.bars.map((bar) => bar.start_ms + bar.duration_ms)));
  document.getElementById("traces").replaceChildren(...whole.map((column) => waterfall(column, end)));
}

function waterfall({ title, number, finished, seen }, end) {
  const node = document.getElementById("waterfall").content.firstElementChild.cloneNode(true);
  const heading = node.querySelector("h3");
  [heading.textContent, heading.id] = [title, `trace-${number}`];
  const scroll = node.querySelector(".scroll");
  scroll.setAttribute("aria-labelledby", heading.id);
  const trace = finished.trace_id ? ` Its trace id is ${finished.trace_id}.` : "";
  node.querySelector("p").textContent = `Answered by ${finished.server}. In this browser the first words came after ${Math.round(seen.first)} ms and the end after ${Math.round(seen.end)} ms, sending what was sent (${kilobytes(finished.sent_bytes)} to the decoder) included.${trace}`;
  node.querySelector(".axis").textContent = `when, from 0 to ${end.toFixed(0)} ms`;
  node.querySelector("tbody").replaceChildren(...finished.bars.map((bar) => row(bar, end)));
  return node;
}

function row(bar, end) {
  const line = element("div", { class: "bar" });
  line.style.left = `${(100 * bar.start_ms) / end}%`;
  line.style.width = `${(100 * bar.duration_ms) / end}%`;
  const name = element("th", { scope: "row" }, bar.name);
  if (bar.note) name.append(element("span", { class: "hint" }, ` ${bar.note}`));
  const lane = element("div", { class: "lane", role: "img", "aria-label": `from ${bar.start_ms.toFixed(1)} to ${(bar.start_ms + bar.duration_ms).toFixed(1)} ms` }, line);
  return element(
    "tr", { class: `depth-${bar.depth}` }, name, element("td", { class: "number" }, bar.duration_ms.toFixed(1)),
    element("td", {}, lane), element("td", {}, bar.measured_by),
  );
}

function start(text) {
  return text.length > START ? `${text.slice(0, START)} …` : text;
}

function kilobytes(bytes) {
  return bytes < 2 ** 20 ? `${(bytes / 2 ** 10).toFixed(1)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function share({ average, before }) {
  return `${((100 * average) / Math.max(1, before)).toFixed(1)}%`;
}
