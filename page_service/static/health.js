// The strip at the top: what the page depends on, looked at while somebody looks at the page.

import { element } from "./elements.js";

const EVERY_MS = 3000;
const PATIENCE_MS = 6000; // longer than the page's server waits for the services
const NAMES = ["decoder", "encoder", "redis"];
const SIGNS = { ready: "●", away: "✕", "not told": "○" };
const NO_SERVER = { state: "away", words: "its own server does not answer: start `vscan page` or `vscan up --page`" };

// Calls `told` with each state of the page's server.
export function watch(told) {
  let waiting = false;
  const look = async () => {
    if (waiting || document.visibilityState !== "visible") return;
    waiting = true;
    try {
      const response = await fetch("state", { signal: AbortSignal.timeout(PATIENCE_MS) });
      if (!response.ok) throw new Error(response.statusText);
      const state = await response.json();
      show(NAMES.map((name) => [name, state[name]]));
      told(state);
    } catch {
      show([["page", NO_SERVER]]);
    } finally {
      waiting = false;
    }
  };
  document.addEventListener("visibilitychange", look);
  setInterval(look, EVERY_MS);
  look();
}

// What says the same is left alone: somebody may be reading or copying it.
function show(parts) {
  const strip = document.getElementById("health");
  const said = JSON.stringify(parts.map(([name, { state, words }]) => [name, state, words]));
  if (strip.dataset.said === said) return;
  strip.dataset.said = said;
  strip.replaceChildren(...parts.map(([name, { state, words }]) => element(
    "li", { class: state === "away" ? "away" : null },
    element("strong", {}, element("span", { "aria-hidden": "true" }, SIGNS[state]), ` ${name} ${state}`), ` ${words}`,
  )));
}
