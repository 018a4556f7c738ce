// The strip at the top: what the page depends on, looked at while somebody looks at the page.

import { element } from "./elements.js";

const EVERY_MS = 3000;
const NAMES = ["decoder", "encoder", "redis"];
const SIGNS = { ready: "●", away: "✕", "not told": "○" };

// Calls `told` with each state of the page's server.
export function watch(told) {
  let waiting = false;
  const look = async () => {
    if (waiting || document.visibilityState !== "visible") return;
    waiting = true;
    try {
      const response = await fetch("state");
      if (!response.ok) throw new Error(response.statusText);
      const state = await response.json();
      show(NAMES.map((name) => [name, state[name]]));
      told(state);
    } catch {
      show([["page", { state: "away", words: "its own server does not answer: start `vscan page` or `vscan up --page`" }]]);
    } finally {
      waiting = false;
    }
  };
  document.addEventListener("visibilitychange", look);
  setInterval(look, EVERY_MS);
  look();
}

function show(parts) {
  document.getElementById("health").replaceChildren(...parts.map(([name, { state, words }]) => element(
    "li", { class: state === "away" ? "away" : "" }, element("strong", {}, `${SIGNS[state]} ${name} ${state}`), ` ${words}`,
  )));
}
