// The page: a form, two columns, two tables.

import { AskError, ask } from "./asking.js";
import { Column } from "./column.js";
import { Form, clearComplaints, complain } from "./form.js";
import { watch } from "./health.js";
import { sideBySide, waterfalls } from "./tables.js";

const PLAIN = "none";
const SLIDER_RESTS_MS = 350;

const $ = (id) => document.getElementById(id);
const [stop, ask_] = [$("stop"), $("ask")];
let columns = { chosen: null, plain: null };
let running = null; // what ends the questions that are being asked
let last = null; // what both columns are about
let pending = 0; // the timer of a slider that may still move
let asked = new Set(); // what was asked about these files, as text

const form = new Form({
  submitted: askAll,
  edited: tellAbout,
  moved: askAgainSoon,
  chosen: () => {
    end("Stopped, as other files were chosen.");
    asked = new Set();
    tellAbout();
  },
});
watch((state) => {
  form.limits = { ...state.limits, max_images: state.decoder.max_images };
});
stop.addEventListener("click", () => end("Stopped."));
addEventListener("keydown", (event) => event.key === "Escape" && end("Stopped."));
addEventListener("pagehide", () => end("Stopped, as the page was left.")); // a browser may keep a page that was left, and its requests

function end(why) {
  clearTimeout(pending);
  running?.abort(why);
}

function askAll() {
  if (running && isAbout() && last.budget === form.budget && last.isCompared === form.isCompared) return; // a click too many
  clearTimeout(pending);
  if (!form.isComplete()) return;
  inTurn(plainToo(false));
  if (matchMedia("(max-width: 50rem)").matches) $("about").scrollIntoView({ block: "start" }); // else the answers are below the screen
}

// The slider asks again what was asked; what is written or chosen meanwhile waits for Ask.
function askAgainSoon() {
  clearTimeout(pending);
  pending = setTimeout(() => {
    if (isAbout() && form.isComplete()) inTurn(plainToo(columns.plain?.finished));
  }, SLIDER_RESTS_MS);
}

// Whether the columns are about what the form says.
function isAbout() {
  return last !== null && last.text === form.question && last.sources === form.sources;
}

function tellAbout() {
  const about = $("about");
  about.hidden = last === null;
  if (last === null) return;
  const stale = isAbout() ? "" : " The form says something else by now: press Ask.";
  about.textContent = `“${last.text}” about ${last.sources.map(({ file }) => file.name).join(", ")}.${stale}`;
  about.classList.toggle("stale", stale !== "");
}

// What to ask: the chosen budget, then no reduction, unless that is there already.
function plainToo(isThere) {
  if (isThere) return [["chosen", form.budget]];
  columns.plain = null;
  return form.isCompared ? [["chosen", form.budget], ["plain", PLAIN]] : [["chosen", form.budget]];
}

// Asks one after the other, so that their times do not disturb each other.
async function inTurn(turns) {
  running?.abort("Another was asked.");
  const own = (running = new AbortController());
  clearComplaints();
  stop.disabled = false;
  last = { text: form.question, sources: form.sources, budget: form.budget, isCompared: form.isCompared };
  tellAbout();
  try {
    for (const [place, budget] of turns) {
      const column = columnFor(budget, last);
      columns[place] = column;
      layOut();
      if (!(await follow(column, last, own.signal))) break;
    }
  } finally {
    if (running === own) rest();
  }
}

function columnFor(budget, { text, sources }) {
  const column = new Column(budget === PLAIN ? "No reduction" : `Budget ${budget}`, budget, asked.has(`${budget} ${text}`));
  column.preview(sources);
  return column;
}

function rest() {
  running = null;
  if (document.activeElement === stop) ask_.focus(); // a button that is disabled would lose it
  stop.disabled = true;
}

function layOut() {
  $("answers").replaceChildren(...[columns.chosen, columns.plain].filter(Boolean).map(({ node }) => node));
  tellTables();
}

function tellTables() {
  sideBySide(columns.chosen, columns.plain);
  waterfalls([columns.chosen, columns.plain]);
}

// Follows one answer to its end; whether there was one.
async function follow(column, about, signal) {
  tell(`${column.title}: asked.`);
  try {
    await answer(column, about, signal);
    return true;
  } catch (error) {
    if (columns.chosen !== column && columns.plain !== column) return false; // another has its place by now
    const told = signal.aborted ? { field: "", message: signal.reason } : toldOf(error);
    column.fail(told, signal.aborted);
    if (told.field) complain(told);
    tell(`${column.title}: ${signal.aborted ? "stopped" : "no answer"}.`);
    return false;
  }
}

function toldOf(error) {
  if (error instanceof AskError) return error.told;
  console.error(error);
  return { field: "", message: `The page itself failed: ${error.message}.`, advice: "Load it again." };
}

async function answer(column, about, signal) {
  const began = performance.now();
  column.seen = { first: 0, end: 0 };
  const tryWith = async (isWhole) => {
    const visuals = about.sources.map((source) => source.form(column.asked, isWhole));
    for await (const [name, data] of ask({ question: about.text, budget: column.asked, visuals, signal })) {
      await take(column, about, name, data, () => performance.now() - began);
      signal.throwIfAborted();
    }
  };
  try {
    await tryWith(false);
  } catch (error) {
    if (!(error instanceof AskError) || error.told.code !== "missing_files") throw error;
    column.stage("its tokens are gone from the cache: the files are sent again");
    await tryWith(true);
  }
}

async function take(column, { text, sources }, name, data, now) {
  if (name === "started") {
    asked.add(`${column.asked} ${text}`); // even where it is stopped: its prompt may have been read
    sources.forEach((source, index) => {
      source.sha256 = data.images[index].sha256;
      source.isVideo = data.images[index].frames !== null;
      source.askedAt.add(column.asked);
    });
    column.drawn = column.start(data, sources);
    column.drawn.catch(() => {}); // told where it is waited for
  } else if (name === "delta") {
    column.seen.first ||= now();
    column.more(data.text);
  } else if (name === "finished") {
    column.seen.end = now();
    await column.drawn;
    column.finish(data);
    tellTables();
    tell(`${column.title}: ${data.tokens.after} of ${data.tokens.before} tokens kept.`, ` Answer: ${data.text.trim() || "(nothing)"}`);
  }
}

// Says it to all; `heard` is for those who listen, as the others see it in its column.
function tell(words, heard = "") {
  $("status").firstElementChild.textContent = words;
  $("status").lastElementChild.textContent = heard;
}
