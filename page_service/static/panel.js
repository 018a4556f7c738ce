// A picture, and over it what was kept of it. Where things lie comes from the server, in fractions of the picture.
//
// What can be shown: "picture" alone, what the encoder "kept", what was "merged" into what, and "0", "1" …: what went on past that
// pruning layer.

import { drawing, element } from "./elements.js";

const BLANK = { node: null, width: 4, height: 3 };
const UNTOLD = { window: [0, 0, 1, 1], area: [0, 0, 1, 1], hides: false, marks: [], newlines: [], title: "" };
const MANY_THREADS = 150; // of more only those to the fullest tokens stand out
const FULLEST = 5;

export class Panel {
  // `view`: of one answer, or null while nothing is told of it; `picture`: an element with its size, or null.
  constructor(view, picture, name) {
    this.view = view ?? UNTOLD;
    this.name = this.view.title ? `${name}, ${this.view.title}` : name;
    const shown = picture ?? BLANK;
    const [left, top, width, height] = this.view.window;
    this.svg = drawing("svg", { viewBox: `${left} ${top} ${width} ${height}`, preserveAspectRatio: "none", role: "img" });
    this.look = drawing("g");
    this.caption = element("figcaption");
    const node = element("span", { class: "panel" });
    node.style.aspectRatio = `${width * shown.width} / ${height * shown.height}`;
    node.style.setProperty("--ratio", (width * shown.width) / (height * shown.height));
    if (shown.node) {
      const place = shown.node.style;
      [place.left, place.top] = [percent(-left / width), percent(-top / height)];
      [place.width, place.height] = [percent(1 / width), percent(1 / height)];
      node.append(shown.node);
    }
    node.append(this.svg);
    this.node = element("figure", {}, node, this.caption);
  }

  // `survivors`: for each pruning layer the rows that went on, as a set.
  draw(survivors, shown) {
    const { marks, newlines, window } = this.view;
    const stage = /^\d+$/.test(shown) ? Number(shown) : null;
    const reached = marks.filter((mark) => stage === null || past(survivors, stage, mark.token));
    const alive = reached.filter((mark) => stage === null || survivors[stage].has(mark.token));
    const ends = newlines.filter((mark) => stage === null || past(survivors, stage + 1, mark.token));
    const layers = [this.unseen()];
    if (shown !== "picture") {
      layers.push(veil(window, alive.map((mark) => mark.box)));
      if (shown === "merged") layers.push(...threads(marks));
      for (const mark of reached) layers.push(sign(mark, kind(mark, survivors, stage, shown)));
      for (const mark of ends) layers.push(sign(mark, "newline"));
    }
    this.svg.replaceChildren(...layers.filter(Boolean), this.look);
    this.caption.textContent = this.words(reached.length, alive.length, shown);
    this.svg.setAttribute("aria-label", this.caption.textContent);
  }

  words(reached, alive, shown) {
    if (shown === "picture") return this.name;
    const of = this.view.rows * this.view.columns;
    if (shown === "kept") return `${this.name}: ${alive} kept of ${of} patches`;
    if (shown === "merged") return `${this.name}: ${this.view.marks.reduce((sum, mark) => sum + mark.merged.length, 0)} patches merged into others`;
    return `${this.name}: ${alive} of ${reached} patches went on`;
  }

  // Shows one kept patch, and what was merged into it; null shows none.
  lookAt(mark) {
    this.look.replaceChildren();
    if (mark === null) return;
    for (const box of mark.merged) this.look.append(rectangle(box, "held"));
    if (mark.merged.length) this.look.append(...thread(mark, "thread"));
    this.look.append(rectangle(mark.box, "looked edge"), rectangle(mark.box, "looked"));
  }

  // `pointed` is called with [mark, whether the pointer is on a patch that was merged into it], with [null, true] on a patch that was dropped
  // and went nowhere, and with null when the pointer leaves; `picked` with the mark that is clicked or tapped.
  listen({ pointed, picked }) {
    this.svg.addEventListener("pointermove", (event) => event.pointerType !== "touch" && pointed(this.at(event)));
    this.svg.addEventListener("pointerleave", () => pointed(null));
    this.svg.addEventListener("click", (event) => picked(this.at(event)?.[0] ?? null));
  }

  at({ clientX, clientY }) {
    const box = this.svg.getBoundingClientRect();
    const [left, top, width, height] = this.view.window;
    const [x, y] = [left + (width * (clientX - box.left)) / box.width, top + (height * (clientY - box.top)) / box.height];
    const around = ([a, b, c, d]) => x >= a && x < a + c && y >= b && y < b + d;
    const own = this.view.marks.find((mark) => around(mark.box));
    if (own) return [own, false];
    return around(this.view.area) ? [this.view.marks.find((mark) => mark.merged.some(around)) ?? null, true] : null;
  }

  unseen() {
    if (!this.view.hides) return null;
    return drawing("path", { class: "unseen", "fill-rule": "evenodd", d: outline([0, 0, 1, 1]) + outline(this.view.area) });
  }
}

function kind(mark, survivors, stage, shown) {
  if (stage !== null) return survivors[stage].has(mark.token) ? "survivor" : "lost";
  return shown === "merged" && !mark.merged.length ? "all" : mark.sign;
}

// Whether a token went on past the first `layers` pruning layers.
function past(survivors, layers, token) {
  return survivors.slice(0, layers).every((layer) => layer.has(token));
}

function sign(mark, name) {
  if (name === "all") return null;
  const [x, y, width, height] = mark.box;
  return drawing("use", { href: `#sign-${name}`, x, y, width, height, class: `mark ${name}`, "data-token": mark.token });
}

// A line from each patch that was dropped to the one that holds it.
function threads(marks) {
  const bySize = marks.filter((mark) => mark.merged.length).sort((one, other) => one.merged.length - other.merged.length);
  const many = bySize.reduce((sum, mark) => sum + mark.merged.length, 0) > MANY_THREADS;
  return bySize.flatMap((mark, rank) => thread(mark, many && rank < bySize.length - FULLEST ? "thread pale" : "thread"));
}

function thread(mark, name) {
  const end = middle(mark.box);
  const d = mark.merged.map((box) => `M${middle(box)}L${end}`).join("");
  return [drawing("path", { class: `${name} edge`, d }), drawing("path", { class: name, d })];
}

function middle([x, y, width, height]) {
  return `${x + width / 2} ${y + height / 2}`;
}

function veil(window, clear) {
  return drawing("path", { class: "veil", "fill-rule": "evenodd", d: [window, ...clear].map(outline).join("") });
}

function rectangle([x, y, width, height], name) {
  return drawing("rect", { class: name, x, y, width, height });
}

function outline([x, y, width, height]) {
  return `M${x} ${y}h${width}v${height}h${-width}Z`;
}

function percent(fraction) {
  return `${100 * fraction}%`;
}
