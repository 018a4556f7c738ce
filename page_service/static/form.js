// What the form says, and what is wrong with it, said beside it.

import { takeDrops } from "./dropping.js";
import { Source } from "./sources.js";

const SHARES = [3, 5, 8, 11.1, 16, 22, 33, 50, 66.6]; // per cent on average over the layers; the slider's places
const ROOM_FOR_FORM = 4096; // bytes of an upload that are no file

const $ = (id) => document.getElementById(id);
const [form, files, question, budget, other, compare] = ["form", "files", "question", "budget", "other", "compare"].map($);

export class Form {
  // Called: `submitted`; `chosen` when there are other files; `moved` when the budget has another value; `edited` when the question has.
  constructor({ submitted, chosen, moved, edited }) {
    this.limits = null; // told by the server
    this.sources = [];
    this.chosen = chosen;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submitted();
    });
    question.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    question.addEventListener("input", edited);
    files.addEventListener("change", () => this.choose([...files.files]));
    for (const input of [budget, other]) {
      input.addEventListener("input", tellBudget);
      input.addEventListener("change", moved);
    }
    takeDrops({
      taken: (dropped) => {
        files.files = dropped;
        this.choose([...files.files]);
      },
      refused: (why) => complain({ field: "files", message: why }),
      over: (isOver) => form.classList.toggle("over", isOver),
    });
    // A browser that comes back to the page fills the form again, later than scripts begin, and says so to nobody.
    addEventListener("pageshow", () => {
      tellBudget();
      if (files.files.length && !this.sources.length) this.choose([...files.files]);
    });
    tellBudget();
  }

  get question() {
    return question.value.trim();
  }

  get budget() {
    return other.value.trim() || `avg:${SHARES[budget.value]}%`;
  }

  get isCompared() {
    return compare.checked;
  }

  choose(chosen) {
    for (const source of this.sources) source.forget();
    this.sources = chosen.map((file) => new Source(file));
    $("chosen").textContent = this.sources.map(({ file }) => `${file.name} (${size(file.size)}${isGif(file) ? ", its first picture only" : ""})`).join(", ");
    complain({ field: "files", message: this.wrongWithFiles() ?? "" });
    this.chosen();
  }

  // Whether what it says can be asked; else it says why not, and goes there.
  isComplete() {
    clearComplaints();
    complain({ field: "files", message: this.wrongWithFiles() ?? "" });
    complain({ field: "question", message: this.wrongWithQuestion() ?? "" });
    const first = [files, question].find((input) => input.getAttribute("aria-invalid") === "true");
    first?.focus();
    return !first;
  }

  wrongWithFiles() {
    if (!this.sources.length) return "Choose an image or a video.";
    if (!this.limits) return null;
    const most = Math.min(this.limits.max_files, this.limits.max_images || Infinity);
    if (this.sources.length > most) return `${this.sources.length} files; at most ${most} for one question.`;
    const bytes = this.sources.reduce((sum, { file }) => sum + file.size, 0);
    const room = this.limits.max_upload_bytes;
    if (bytes > room - ROOM_FOR_FORM) return `The files are too large: ${size(bytes)}, at most ${size(room)} together. Choose smaller or fewer files.`;
    return null;
  }

  wrongWithQuestion() {
    if (!this.question) return "Write a question.";
    const [length, most] = [[...this.question].length, this.limits?.max_question_chars ?? Infinity];
    return length > most ? `The question has ${length} characters; at most ${most}.` : null;
  }
}

export function complain({ field = "", message = "", advice = "" } = {}) {
  const place = { files: "files", question: "question", budget: "budget" }[field] ?? "form";
  $(`${place}-error`).textContent = [message, advice].filter(Boolean).join(" ");
  const input = { files, question, budget: other.value.trim() ? other : budget }[place];
  input?.setAttribute("aria-invalid", String(Boolean(message)));
}

export function clearComplaints() {
  for (const field of ["files", "question", "budget", ""]) complain({ field });
  for (const input of [budget, other]) input.setAttribute("aria-invalid", "false");
}

function tellBudget() {
  const own = other.value.trim();
  const words = own ? `${own}, as written below` : `${SHARES[budget.value]}% of them, on average over the layers`;
  $("budget-words").textContent = words;
  budget.setAttribute("aria-valuetext", words);
}

function size(bytes) {
  return bytes < 2 ** 20 ? `${Math.max(1, Math.round(bytes / 2 ** 10))} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function isGif(file) {
  return file.type === "image/gif";
}
