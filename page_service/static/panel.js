// A picture, and over it what was kept of it. Where things lie comes from the server, in fractions of the picture.

import { drawing, element } from "./elements.js";

const BLANK = { node: null, width: 4, height: 3 };

export class Panel {
  // `view`: of one answer; `picture`: an element with its size, or null.
  constructor(view, picture, name) {
    this.view = view;
    this.name = name;
    const shown = picture ?? BLANK;
    const [left, top, width, height] = view.window;
    this.svg = drawing("svg", { viewBox: `${left} ${top} ${width} ${height}`, preserveAspectRatio: "none", role: "img" });
    this.look = drawing("g");
    this.node = element("span", { class: "panel" });
    this.node.style.aspectRatio = `${width * shown.width} / ${height * shown.height}`;
    if (shown.node) {
      const place = shown.node.style;
      [place.left, place.top] = [percent(-left / width), percent(-top / height)];
      [place.width, place.height] = [percent(1 / width), percent(1 / height)];
      this.node.append(shown.node);
    }
    this.node.append(this.svg);
  }

  // Draws a stage: null, what the encoder kept; else the rows that went on past that many pruning layers and one.
  draw(survivors, stage) {
    const marks = this.view.marks.filter((mark) => stage === null || past(survivors, stage, mark.token));
    const alive = marks.filter((mark) => stage === null || survivors[stage].has(mark.token));
    const ends = this.view.newlines.filter((mark) => stage === null || past(survivors, stage + 1, mark.token));
    const layers = [this.unseen(), veil(this.view.window, alive.map((mark) => mark.box))];
    for (const mark of marks) layers.push(sign(mark, kind(mark, survivors, stage)));
    for (const mark of ends) layers.push(sign(mark, "newline"));
    this.svg.replaceChildren(...layers.filter(Boolean), this.look);
    this.svg.setAttribute("aria-label", this.words(marks.length, alive.length, stage));
    this.alive = alive.length;
  }

  words(reached, alive, stage) {
    const of = this.view.title ? `${this.name}, ${this.view.title}` : this.name;
    if (stage === null) return `${of}: ${alive} kept of ${this.view.rows * this.view.columns} patches`;
    return `${of}: ${alive} of ${reached} patches went on`;
  }

  // Shows one kept patch, and what was merged into it; null shows none.
  lookAt(mark) {
    this.look.replaceChildren();
    if (mark === null) return;
    for (const box of mark.merged) this.look.append(rectangle(box, "held"));
    this.look.append(rectangle(mark.box, "looked"));
  }

  unseen() {
    if (!this.view.hides) return null;
    return drawing("path", { class: "unseen", "fill-rule": "evenodd", d: outline([0, 0, 1, 1]) + outline(this.view.area) });
  }
}

function kind(mark, survivors, stage) {
  if (stage === null) return mark.sign;
  return survivors[stage].has(mark.token) ? "survivor" : "lost";
}

// Whether a token went on past the first `layers` pruning layers.
function past(survivors, layers, token) {
  return survivors.slice(0, layers).every((layer) => layer.has(token));
}

function sign(mark, name) {
  if (name === "all") return null;
  const [x, y, width, height] = mark.box;
  const attributes = { href: `#sign-${name}`, x, y, width, height, class: `mark ${name}`, "data-token": mark.token };
  return drawing("use", attributes);
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
