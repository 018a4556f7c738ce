// One answer: its text as it comes, the stages it went through, its pictures, its counts.

import { element } from "./elements.js";
import { Panel } from "./panel.js";

let made = 0;

export class Column {
  constructor(title) {
    this.title = title;
    this.number = made++;
    this.node = document.getElementById("column").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.node.querySelector(selector);
    [this.answer, this.error, this.stages, this.views] = [".answer", ".error", ".stages", ".views"].map(find);
    [this.pictures, this.patch, this.counts] = [".pictures", ".patch", ".counts tbody"].map(find);
    find("h2").textContent = title;
    this.slider = this.patch.querySelector("input");
    this.patchWords = this.patch.querySelector("output");
    this.slider.addEventListener("input", () => this.lookAt(Number(this.slider.value)));
    this.panels = [];
    this.started = this.finished = null;
    this.stage("asked");
  }

  stage(words) {
    for (const before of this.stages.querySelectorAll(".now")) before.classList.remove("now");
    this.stages.append(element("li", { class: "now" }, words));
  }

  // The encoder's part is known. `sources`: the files, for their pictures.
  async start(started, sources) {
    this.started = started;
    const images = started.images;
    this.stage(images.map((image) => `${image.tokens_after} of ${image.tokens_before} tokens kept, ${image.place}`).join("; "));
    this.tell();
    const panels = [];
    for (const [index, image] of images.entries()) {
      sources[index].isVideo = image.frames !== null;
      const pictures = await sources[index].pictures(image.frames);
      for (const view of image.views) {
        const panel = new Panel(view, pictures[view.frame ?? 0] && copyOf(pictures[view.frame ?? 0]), sources[index].file.name);
        panels.push({ panel, visual: index });
      }
      if (pictures.some((picture) => picture === null)) this.note(`This browser cannot show ${sources[index].file.name}; its patches are drawn on blank paper.`);
      if (image.views.some((view) => !view.is_stated)) this.note("The server does not say where the patches lie; they are drawn as if they covered the whole picture.");
    }
    this.panels = panels;
    this.pictures.classList.toggle("frames", images.some((image) => image.frames !== null));
    this.pictures.prepend(...panels.map(({ panel }) => figure(panel)));
    this.draw(null);
    this.offerPatches();
  }

  note(words) {
    this.pictures.append(element("p", { class: "hint" }, words));
  }

  more(text) {
    if (!this.answer.textContent) this.stage("the answer is being written");
    this.answer.textContent += text;
  }

  finish(finished) {
    this.finished = finished;
    this.answer.textContent = finished.text.trim() || "(nothing)";
    for (const layer of finished.pruning) this.stage(`${layer.after} of ${layer.before} tokens went on past layer ${layer.layer}`);
    this.stage(`done: ${finished.tokens.answer} tokens in ${finished.total_ms} ms`);
    this.survivors = this.started.images.map((_, visual) => finished.pruning.map((layer) => new Set(layer.survivors[visual] ?? [])));
    this.tell();
    this.offerViews();
    if (finished.pruning.length) this.show(finished.pruning.length - 1);
  }

  fail(told) {
    this.error.textContent = [told.message, told.advice].filter(Boolean).join(" ");
    this.stage("no answer");
  }

  draw(stage) {
    for (const { panel, visual } of this.panels) {
      panel.draw(this.survivors?.[visual] ?? [], stage);
      panel.caption.textContent = panel.words(panel.view.marks.length, panel.alive, stage);
    }
  }

  show(stage) {
    this.draw(stage);
    for (const input of this.views.querySelectorAll("input")) input.checked = input.value === String(stage);
  }

  offerViews() {
    const layers = this.finished.pruning;
    if (!layers.length) return;
    const choices = [["what the encoder kept", null], ...layers.map((layer, index) => [`what went on past layer ${layer.layer}`, index])];
    for (const [words, stage] of choices) {
      const input = element("input", { type: "radio", name: `view-${this.number}`, value: String(stage) });
      input.addEventListener("change", () => this.draw(stage));
      this.views.append(element("label", {}, input, ` ${words}`));
    }
    this.views.hidden = false;
  }

  offerPatches() {
    this.kept = this.panels.flatMap(({ panel, visual }) => panel.view.marks.map((mark) => ({ panel, visual, mark })));
    this.slider.max = this.kept.length;
    this.patch.hidden = this.kept.length === 0;
    this.lookAt(0);
  }

  lookAt(place) {
    for (const { panel } of this.panels) panel.lookAt(null);
    const chosen = this.kept[place - 1];
    const words = chosen ? wordsOf(chosen, this) : "none";
    if (chosen) chosen.panel.lookAt(chosen.mark);
    this.patchWords.textContent = words;
    this.slider.setAttribute("aria-valuetext", words);
  }

  // What the pictures show, in a table.
  tell() {
    const rows = [];
    for (const [index, image] of this.started.images.entries()) {
      const name = this.started.images.length > 1 ? `${index + 1}: ` : "";
      rows.push([`${name}kept by the encoder`, image.kept], [`${name}merged`, image.merged], [`${name}where its tokens were`, image.place]);
      for (const layer of this.finished?.pruning ?? []) {
        rows.push([`${name}past layer ${layer.layer}`, `${layer.survivors[index]?.length ?? "?"} of its tokens went on`]);
      }
    }
    if (this.finished) rows.push(["average over the layers", `${this.finished.tokens.average} of ${this.finished.tokens.before} tokens`]);
    this.counts.replaceChildren(...rows.map(([head, text]) => element("tr", {}, element("th", { scope: "row" }, head), element("td", {}, text))));
  }
}

function figure(panel) {
  panel.caption = element("figcaption");
  return element("figure", {}, panel.node, panel.caption);
}

// The same picture may stand in several panels.
function copyOf({ node, width, height }) {
  const copy = node.cloneNode();
  if (copy.localName === "canvas") copy.getContext("2d").drawImage(node, 0, 0);
  return { node: copy, width, height };
}

const SIGNS = { local: "kept by the local scan", global: "kept by the global scan", all: "kept, as nothing was dropped", other: "kept otherwise" };

function wordsOf({ mark, visual }, column) {
  const held = mark.merged.length;
  const parts = [`row ${mark.row}, column ${mark.column}: ${SIGNS[mark.sign]}`];
  parts.push(held === 0 ? "nothing was merged into it" : held === 1 ? "1 patch was merged into it" : `${held} patches were merged into it`);
  for (const [index, layer] of (column.finished?.pruning ?? []).entries()) {
    if (!column.survivors[visual][index].has(mark.token)) {
      parts.push(`ended at layer ${layer.layer}`);
      break;
    }
    parts.push(`went on past layer ${layer.layer}`);
  }
  return parts.join("; ");
}
