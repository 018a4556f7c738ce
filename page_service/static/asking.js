// One question to the page's own server: a form there, server-sent events back.

export class AskError extends Error {
  constructor(told) {
    super(told.message);
    this.told = told;
  }
}

const NO_SERVER = {
  code: "no_page_server", field: "", message: "The page's own server does not answer.",
  advice: "Start it again with `vscan page` or `vscan up --page`.",
};

// Yields [name, data] until the answer is whole. Throws AskError where there is none; where `signal` ends it, whatever comes first.
export async function* ask({ question, budget, visuals, signal }) {
  const form = new FormData();
  form.append("question", question);
  form.append("budget", budget);
  for (const visual of visuals) form.append("visual", visual);
  let response;
  try {
    response = await fetch("ask", { method: "POST", body: form, signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new AskError((await unreadableOf(visuals)) ?? NO_SERVER);
  }
  if (!response.ok) throw new AskError(await refusalIn(response));
  let end = null;
  for await (const [name, data] of eventsIn(response.body, signal)) {
    signal.throwIfAborted(); // what had come before is no longer wanted either
    if (name === "failed" || name === "finished") end = [name, data]; // read on to the end of the body: to leave it would break it off
    else yield [name, data];
  }
  if (end === null) throw new AskError({ ...NO_SERVER, message: "The answer broke off." });
  if (end[0] === "failed") throw new AskError(end[1]);
  yield end;
}

// Why nothing could be sent, where it is for a file: one that was moved, removed or written to since it was chosen.
async function unreadableOf(visuals) {
  for (const file of visuals.filter((visual) => visual instanceof File)) {
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {
      return { code: "unreadable", field: "files", message: `${file.name} cannot be read.`, advice: "It was changed or moved since, or may not be read: choose it again." };
    }
  }
  return null;
}

async function refusalIn(response) {
  try {
    return (await response.json()).error;
  } catch {
    return { code: "failed", field: "", message: `The page's server failed (${response.status}).`, advice: "Its log says why." };
  }
}

// Chromium's log of the network calls a body that is read piece by piece aborted (net::ERR_ABORTED), even where it came whole.
async function* eventsIn(body, signal) {
  const reader = body.getReader();
  const letters = new TextDecoder();
  let text = "";
  let isWhole = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) {
        isWhole = true;
        return;
      }
      text += letters.decode(value, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const [name, data] = block.split("\n").map((line) => line.slice(line.indexOf(": ") + 2));
        yield [name, JSON.parse(data)];
      }
    }
  } catch (error) {
    if (signal.aborted) throw error;
    throw new AskError({ ...NO_SERVER, message: "The connection to the page's server broke off." });
  } finally {
    if (!isWhole) reader.cancel().catch(() => {});
  }
}
