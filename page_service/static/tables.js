// Side by side, and where the time went.

import { element } from "./elements.js";

const ROWS = [
  ["tokens of the files", ({ finished }) => finished.tokens.before],
  ["kept by the encoder", ({ finished }) => finished.tokens.after],
  ["after the last pruning layer", ({ finished }) => finished.pruning.at(-1)?.after ?? finished.tokens.after],
  ["average over the layers", ({ finished }) => `${finished.tokens.average} (${share(finished.tokens)})`],
  ["time to the first token", ({ finished }) => `${finished.ttft_ms} ms`],
  ["the whole answer, in the decoder", ({ finished }) => `${finished.total_ms} ms`],
  ["where the tokens were", ({ started }) => [...new Set(started.images.map((image) => image.place))].join("; ")],
  ["answer", ({ finished }) => finished.text.trim() || "(nothing)"],
];

export function sideBySide(chosen, plain) {
  const section = document.getElementById("side");
  section.hidden = !(chosen?.finished || plain?.finished);
  document.getElementById("side-chosen").textContent = chosen?.title ?? "";
  const told = (column, of) => (column?.finished ? String(of(column)) : "–");
  document.getElementById("side-rows").replaceChildren(...ROWS.map(([head, of]) => element(
    "tr", {}, element("th", { scope: "row" }, head), element("td", {}, told(chosen, of)), element("td", {}, told(plain, of)),
  )));
}

export function waterfall(title, finished, seenMs) {
  document.getElementById("trace").hidden = false;
  const trace = finished.trace_id ? ` Its trace id is ${finished.trace_id}.` : "";
  document.getElementById("trace-words").textContent = `${title}, answered by ${finished.server}. In this browser the first words came after ${Math.round(seenMs.first)} ms and the end after ${Math.round(seenMs.end)} ms, sending the files included.${trace}`;
  const whole = Math.max(...finished.bars.map((bar) => bar.start_ms + bar.duration_ms), 0.01);
  document.getElementById("trace-rows").replaceChildren(...finished.bars.map((bar) => row(bar, whole)));
}

function row(bar, whole) {
  const line = element("div", { class: "bar" });
  line.style.left = `${(100 * bar.start_ms) / whole}%`;
  line.style.width = `${(100 * bar.duration_ms) / whole}%`;
  const name = element("th", { scope: "row" }, bar.name);
  if (bar.note) name.append(element("span", { class: "hint" }, ` ${bar.note}`));
  const lane = element("div", { class: "lane", role: "img", "aria-label": `from ${bar.start_ms} to ${(bar.start_ms + bar.duration_ms).toFixed(2)} ms` }, line);
  return element(
    "tr", { class: `depth-${bar.depth}` }, name, element("td", { class: "number" }, bar.duration_ms.toFixed(1)),
    element("td", {}, lane), element("td", {}, bar.measured_by),
  );
}

function share({ average, before }) {
  return `${((100 * average) / Math.max(1, before)).toFixed(1)}%`;
}
