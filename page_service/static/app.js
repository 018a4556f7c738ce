// The page: a form, two columns, two tables.

import { AskError, ask } from "./asking.js";
import { Column } from "./column.js";
import { watch } from "./health.js";
import { Source } from "./sources.js";
import { sideBySide, waterfall } from "./tables.js";

const SHARES = [3, 5, 8, 11.1, 16, 22, 33, 50, 66.6]; // per cent on average over the layers; the slider's places
const PLAIN = "none";
const SLIDER_RESTS_MS = 350;

const $ = (id) => document.getElementById(id);
const [form, files, question, budget, other, compare] = ["form", "files", "question", "budget", "other", "compare"].map($);
let limits = null;
let sources = [];
let columns = { chosen: null, plain: null };
let running = null; // what ends the questions that are being asked
let last = { text: "", sources: [] }; // what both columns are about
let pending = 0; // the timer of a slider that may still move

watch((state) => {
  limits = { ...state.limits, max_images: state.decoder.max_images };
  question.maxLength = limits.max_question_chars;
});
budget.addEventListener("input", tellBudget);
budget.addEventListener("change", () => askAgainSoon());
other.addEventListener("input", tellBudget);
other.addEventListener("change", () => askAgainSoon());
form.addEventListener("submit", (event) => {
  event.preventDefault();
  askAll();
});
$("stop").addEventListener("click", () => running?.abort());
files.addEventListener("change", () => choose([...files.files]));
for (const name of ["dragenter", "dragover"]) addEventListener(name, (event) => drag(event, true));
for (const name of ["dragleave", "drop"]) addEventListener(name, (event) => drag(event, false));
addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  files.files = event.dataTransfer.files;
  choose([...files.files]);
});
tellBudget();

function drag(event, over) {
  event.preventDefault();
  form.classList.toggle("over", over);
}

function choose(chosen) {
  running?.abort();
  for (const source of sources) source.forget();
  sources = chosen.map((file) => new Source(file));
  $("chosen").textContent = sources.length ? sources.map(({ file }) => `${file.name} (${size(file.size)})`).join(", ") : "";
  complain({ field: "files", message: wrongWithFiles() ?? "" });
}

function size(bytes) {
  return bytes < 2 ** 20 ? `${Math.max(1, Math.round(bytes / 2 ** 10))} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function wrongWithFiles() {
  if (!sources.length) return "Choose an image or a video.";
  if (!limits) return null;
  const most = Math.min(limits.max_files, limits.max_images || Infinity);
  if (sources.length > most) return `${sources.length} files; at most ${most} for one question.`;
  const bytes = sources.reduce((sum, { file }) => sum + file.size, 0);
  if (bytes > limits.max_upload_bytes - 4096) return `The files are too large: ${size(bytes)}, at most ${size(limits.max_upload_bytes)} together. Choose smaller or fewer files.`;
  return null;
}

function tellBudget() {
  const own = other.value.trim();
  const words = own ? `${own}, as written below` : `${SHARES[budget.value]}% of them, on average over the layers`;
  $("budget-words").textContent = words;
  budget.setAttribute("aria-valuetext", words);
}

function chosenBudget() {
  return other.value.trim() || `avg:${SHARES[budget.value]}%`;
}

function complain({ field = "", message = "", advice = "" } = {}) {
  const place = { files: "files", question: "question", budget: "budget" }[field] ?? "form";
  $(`${place}-error`).textContent = [message, advice].filter(Boolean).join(" ");
  const input = { files, question, budget: other.value.trim() ? other : budget }[place];
  input?.setAttribute("aria-invalid", String(Boolean(message)));
}

function clearComplaints() {
  for (const field of ["files", "question", "budget", ""]) complain({ field });
}

// Whether what the form says can be asked; else it says why not, and goes there.
function isComplete() {
  clearComplaints();
  const wrong = wrongWithFiles();
  if (wrong) complain({ field: "files", message: wrong });
  if (!question.value.trim()) complain({ field: "question", message: "Write a question." });
  const first = [files, question].find((input) => input.getAttribute("aria-invalid") === "true");
  first?.focus();
  return !first;
}

function askAgainSoon() {
  clearTimeout(pending);
  if (!columns.chosen || !sources.length || !question.value.trim()) return;
  pending = setTimeout(() => inTurn(plainToo(isAbout(last) && columns.plain?.finished)), SLIDER_RESTS_MS);
}

function isAbout({ text, sources: about }) {
  return text === question.value.trim() && about === sources;
}

// What to ask: the chosen budget, then no reduction, unless that is there already.
function plainToo(isThere) {
  if (isThere) return [["chosen", chosenBudget()]];
  columns.plain = null;
  return compare.checked ? [["chosen", chosenBudget()], ["plain", PLAIN]] : [["chosen", chosenBudget()]];
}

function askAll() {
  clearTimeout(pending);
  if (!isComplete()) return;
  inTurn(plainToo(false));
}

// Asks one after the other, so that their times do not disturb each other.
async function inTurn(asked) {
  running?.abort();
  const own = (running = new AbortController());
  clearComplaints();
  $("stop").disabled = false;
  const text = question.value.trim();
  const about = sources;
  last = { text, sources };
  try {
    for (const [place, each] of asked) {
      const column = new Column(each === PLAIN ? "No reduction" : `Budget ${each}`);
      columns[place] = column;
      layOut();
      if (!(await follow(column, each, text, about, own.signal))) break;
    }
  } finally {
    if (running === own) {
      running = null;
      $("stop").disabled = true;
    }
  }
}

function layOut() {
  $("answers").replaceChildren(...[columns.chosen, columns.plain].filter(Boolean).map(({ node }) => node));
  sideBySide(columns.chosen, columns.plain);
}

// Follows one answer to its end; whether there was one.
async function follow(column, asked, text, about, signal) {
  $("status").textContent = `${column.title}: asked.`;
  try {
    await answer(column, asked, text, about, signal, false);
    return true;
  } catch (error) {
    if (!(error instanceof AskError) && !signal.aborted) throw error;
    if (columns.chosen !== column && columns.plain !== column) return false; // another has its place by now
    const told = signal.aborted ? { field: "", message: "Stopped." } : error.told;
    column.fail(told);
    if (told.field) complain(told);
    $("status").textContent = `${column.title}: no answer.`;
    return false;
  }
}

async function answer(column, asked, text, about, signal, whole) {
  const began = performance.now();
  const seen = { first: 0, end: 0 };
  let drawn = Promise.resolve();
  try {
    for await (const [name, data] of ask({ question: text, budget: asked, visuals: about.map((source) => source.form(asked, whole)), signal })) {
      if (name === "started") {
        about.forEach((source, index) => {
          source.sha256 = data.images[index].sha256;
          source.askedAt.add(asked);
        });
        drawn = column.start(data, about);
      } else if (name === "delta") {
        seen.first ||= performance.now() - began;
        column.more(data.text);
      } else if (name === "finished") {
        seen.end = performance.now() - began;
        await drawn;
        column.finish(data);
        sideBySide(columns.chosen, columns.plain);
        waterfall(column.title, data, seen);
        $("status").textContent = `${column.title}: ${data.tokens.after} of ${data.tokens.before} tokens kept. Answer: ${data.text.trim() || "(nothing)"}`;
      }
    }
  } catch (error) {
    if (!(error instanceof AskError) || error.told.code !== "missing_files" || whole) throw error;
    await answer(column, asked, text, about, signal, true); // the cache has dropped them: with the files this time
  }
}
