// One answer: its text as it comes, the stages it went through, its pictures, its counts.

import { element } from "./elements.js";
import { Panel } from "./panel.js";
import { copyOf } from "./sources.js";
import { ofPatch, rowsOf, summary } from "./words.js";

const LONG = 120; // characters of an answer that is a text, not a word
const LAYER_MS = 800; // each pruning layer is shown so long, one after the other

let made = 0;

export class Column {
  // `asked`: the budget. `isRepeated`: the same was asked before.
  constructor(title, asked, isRepeated) {
    [this.title, this.asked, this.isRepeated] = [title, asked, isRepeated];
    this.number = made++;
    this.node = document.getElementById("column").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.node.querySelector(selector);
    [this.answer, this.error, this.stages, this.views] = [".answer", ".error", ".stages", ".views"].map(find);
    [this.facts, this.pictures, this.notes] = [".facts", ".pictures", ".notes"].map(find);
    [this.patch, this.counts] = [".patch", ".counts"].map(find);
    const heading = find("h2");
    heading.textContent = title;
    heading.id = `column-${this.number}`;
    this.node.setAttribute("aria-labelledby", heading.id);
    this.slider = this.patch.querySelector("input");
    this.patchWords = this.patch.querySelector("output");
    this.slider.addEventListener("input", () => this.lookAt(Number(this.slider.value)));
    [this.panels, this.kept, this.survivors] = [[], [], []];
    [this.started, this.finished, this.shown, this.playing] = [null, null, "picture", 0];
    this.stage("asked");
  }

  stage(words, name = "now") {
    for (const before of this.stages.querySelectorAll(".now")) before.classList.remove("now");
    this.stages.append(element("li", { class: name }, words));
  }

  // The pictures alone, until the encoder's part is known.
  async preview(sources) {
    const pictures = await Promise.all(sources.map((source) => source.pictures(null)));
    if (this.started || this.error.textContent) return;
    const shown = sources.map((source, visual) => ({ picture: pictures[visual][0], source, visual })).filter(({ picture }) => picture);
    this.place(shown.map(({ picture, source, visual }) => ({ panel: panelOf(null, picture, source), visual, isFrame: source.isVideo })));
  }

  // The encoder's part is known. `sources`: the files, for their pictures.
  async start(started, sources) {
    this.started = started;
    const images = started.images;
    this.stage(images.map((image) => `${image.tokens_after} of ${image.tokens_before} tokens kept, ${image.place}`).join("; "));
    this.tell();
    const pictures = await Promise.all(images.map((image, index) => sources[index].pictures(image.frames)));
    this.shown = "kept";
    this.place(images.flatMap((image, visual) => image.views.map((view) => (
      { panel: panelOf(view, pictures[visual][view.frame ?? 0], sources[visual]), visual, isFrame: view.frame !== null }
    ))));
    this.noteWhatIsMissing(images, pictures, sources);
    this.offerPatches();
    if (this.kept.some(({ mark }) => mark.sign !== "all")) this.offer("kept", "what the encoder kept");
    if (this.kept.some(({ mark }) => mark.merged.length)) this.offer("merged", "what was merged into what");
    this.show("kept");
  }

  place(panels) {
    this.panels = panels;
    const groups = [];
    for (const { panel, visual, isFrame } of panels) {
      if (groups.at(-1)?.visual !== visual) groups.push({ visual, node: element("div", { class: isFrame ? "frames" : null }) });
      groups.at(-1).node.append(panel.node);
    }
    this.pictures.replaceChildren(...groups.map(({ node }) => node));
    this.draw();
  }

  noteWhatIsMissing(images, pictures, sources) {
    const names = (holds) => images.flatMap((image, index) => (holds(image, index) ? [sources[index].file.name] : [])).join(", ");
    const unshown = names((_, index) => pictures[index].some((picture) => picture === null));
    const unstated = names((image) => image.views.some((view) => !view.is_stated));
    const notes = [];
    if (unshown) notes.push(`This browser cannot show ${unshown}: the patches are drawn on blank paper.`);
    if (unstated) notes.push(`The server does not say where the patches of ${unstated} lie: they are drawn as if they covered the whole picture.`);
    this.notes.replaceChildren(...notes.map((words) => element("p", { class: "hint" }, words)));
  }

  more(text) {
    if (!this.answer.textContent) this.stage("the answer is being written");
    this.answer.append(text);
    this.tellLength();
    this.answer.scrollTop = this.answer.scrollHeight;
  }

  // A long answer is scrolled, so that the picture stays in sight; by keys too.
  tellLength() {
    const isLong = this.answer.textContent.length > LONG;
    this.answer.classList.toggle("long", isLong);
    if (isLong) this.answer.tabIndex = 0;
  }

  finish(finished) {
    this.finished = finished;
    this.answer.textContent = finished.text.trim() || "(nothing)";
    this.tellLength();
    for (const layer of finished.pruning) this.stage(`${layer.after} of ${layer.before} tokens went on past layer ${layer.layer}`);
    this.stage(`done: ${finished.tokens.answer} tokens in ${finished.total_ms} ms${finished.reason === "length" ? ", cut at the limit" : ""}`, "now end");
    this.survivors = this.started.images.map((_, visual) => finished.pruning.map((layer) => new Set(layer.survivors[visual] ?? [])));
    this.tell();
    finished.pruning.forEach((layer, index) => this.offer(String(index), `what went on past layer ${layer.layer}`));
    this.play(0);
    this.lookAt(Number(this.slider.value));
  }

  // Pruning layer after pruning layer, unless somebody looks at something of their own choice.
  play(index) {
    const last = this.finished.pruning.length - 1;
    if (index > last) return;
    const at = matchMedia("(prefers-reduced-motion: reduce)").matches ? last : index;
    this.show(String(at));
    this.playing = setTimeout(() => this.play(at + 1), LAYER_MS);
  }

  // `told`: an error; nothing of it is said twice where it stands beside the form already.
  fail(told, isStopped) {
    clearTimeout(this.playing);
    this.error.classList.toggle("stopped", isStopped);
    const beside = { files: "the files", question: "the question", budget: "the budget" }[told.field];
    this.error.textContent = beside ? `No answer: see what is said beside ${beside}.` : [told.message, told.advice].filter(Boolean).join(" ");
    this.stage(isStopped ? "stopped" : this.answer.textContent ? "broke off" : "no answer", "now end");
  }

  draw() {
    for (const { panel, visual } of this.panels) panel.draw(this.survivors[visual] ?? [], this.shown);
  }

  show(shown) {
    this.shown = shown;
    this.draw();
    for (const input of this.views.querySelectorAll("input")) input.checked = input.value === shown;
  }

  offer(value, words) {
    const input = element("input", { type: "radio", name: `view-${this.number}`, value });
    input.addEventListener("change", () => {
      clearTimeout(this.playing);
      this.show(value);
    });
    this.views.append(element("label", {}, input, ` ${words}`));
    this.views.hidden = false;
  }

  offerPatches() {
    this.kept = this.panels.flatMap(({ panel, visual }) => panel.view.marks.map((mark) => ({ panel, visual, mark })));
    this.slider.max = this.kept.length;
    this.patch.hidden = this.kept.length === 0;
    for (const { panel } of this.panels) {
      const placeOf = (mark) => this.kept.findIndex((each) => each.panel === panel && each.mark === mark) + 1;
      panel.listen({
        pointed: (at) => (at ? this.mark(at[0] ? placeOf(at[0]) : 0, at[1]) : this.mark(Number(this.slider.value))),
        picked: (mark) => {
          this.slider.value = mark ? placeOf(mark) : 0;
          this.lookAt(Number(this.slider.value));
        },
      });
    }
    this.lookAt(0);
  }

  // What the slider says.
  lookAt(place) {
    this.mark(place);
    this.slider.setAttribute("aria-valuetext", this.patchWords.textContent);
  }

  // Frames the kept patch at this place (1 …), 0 none; `isDropped`: it is the one that holds what is pointed at.
  mark(place, isDropped = false) {
    for (const { panel } of this.panels) panel.lookAt(null);
    const chosen = this.kept[place - 1];
    chosen?.panel.lookAt(chosen.mark);
    const words = chosen ? ofPatch(chosen, this) : "none";
    this.patchWords.textContent = !isDropped ? words : chosen ? `dropped, and merged into ${words}` : "dropped, and merged into no other";
  }

  // What the pictures show, in a table.
  tell() {
    this.facts.textContent = summary(this.started, this.finished);
    const rows = rowsOf(this.started, this.finished);
    this.counts.hidden = false;
    this.counts.tBodies[0].replaceChildren(...rows.map(([head, text]) => element("tr", {}, element("th", { scope: "row" }, head), element("td", {}, text))));
  }
}

function panelOf(view, picture, source) {
  return new Panel(view, picture && copyOf(picture), source.file.name);
}
