// What pictures and answers show, in words.

const SIGNS = { local: "kept by the local scan", global: "kept by the global scan", all: "kept, as nothing was dropped", other: "kept otherwise" };

// A kept patch, and what became of it.
export function ofPatch({ mark, visual, panel }, { panels, finished, survivors }) {
  const where = panels.length > 1 ? `${panel.name}, ` : "";
  const held = mark.merged.length;
  const parts = [`${where}row ${mark.row}, column ${mark.column}: ${SIGNS[mark.sign]}`];
  parts.push(held === 0 ? "nothing was merged into it" : held === 1 ? "1 patch was merged into it" : `${held} patches were merged into it`);
  for (const [index, layer] of (finished?.pruning ?? []).entries()) {
    if (!survivors[visual][index].has(mark.token)) {
      parts.push(`ended at layer ${layer.layer}`);
      break;
    }
    parts.push(`went on past layer ${layer.layer}`);
  }
  return parts.join("; ");
}

// Of an answer, [what, how many].
export function rowsOf(started, finished) {
  const rows = [];
  for (const [index, image] of started.images.entries()) {
    const name = started.images.length > 1 ? `${index + 1}: ` : "";
    rows.push([`${name}kept by the encoder`, image.kept], [`${name}merged`, image.merged], [`${name}where its tokens were`, image.place]);
    for (const layer of finished?.pruning ?? []) {
      rows.push([`${name}past layer ${layer.layer}`, `${layer.survivors[index]?.length ?? "?"} of its tokens went on`]);
    }
  }
  if (finished) rows.push(["average over the layers", `${finished.tokens.average} of ${finished.tokens.before} tokens`]);
  return rows;
}

// The whole of it on one line, so far as it is known.
export function summary(started, finished) {
  const place = placesOf({ started }).join("; ");
  if (!finished) return place;
  const counts = [finished.tokens.before, finished.tokens.after, ...finished.pruning.map((layer) => layer.after)].join(" → ");
  return `${counts} tokens, ${finished.tokens.average} on average; first token after ${finished.ttft_ms} ms; ${place}`;
}

export function placesOf({ started }) {
  return [...new Set(started.images.map((image) => image.place))];
}

// Whether the times of two answers can be laid beside each other, and if not, why.
export function fairness(chosen, plain) {
  if (!chosen?.finished || !plain?.finished) return "";
  const [left, right] = [chosen, plain].map((column) => placesOf(column).join("; "));
  if (left !== right) {
    return `The times to the first token do not compare: the left side's tokens were ${left}, the right side's ${right}. Ask again to have both found.`;
  }
  const [isHad, isOtherHad] = [chosen, plain].map(hadPrompt);
  if (isHad !== isOtherHad) {
    const [had, other] = isHad ? ["left", "right"] : ["right", "left"];
    return `The times to the first token do not compare: the decoder still had most of the ${had} side's prompt, and not the ${other} side's.`;
  }
  const how = isHad ? "the decoder still had most of both prompts" : "the decoder read both prompts anew";
  return `The times compare: on both sides the tokens were ${left}, and ${how}. One answer each: ask again to see how much they vary.`;
}

// Whether the decoder had most of the prompt from an earlier question; of one that does not tell, whether there was such a one here.
function hadPrompt({ finished, isRepeated }) {
  return finished.tokens.reused === null ? isRepeated : finished.tokens.reused > finished.tokens.prompt / 2;
}
