"""The same as a page: one file without scripts, which asks nothing of the network.

A patch that is pointed at, tapped or focused lights up what was merged into it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape

from PIL import Image

from vscan_client.show.facts import Column, average_text, counts_text
from vscan_client.show.stages import Band, Shown
from vscan_client.show.svg import panel, plain, sign_of

_SMALL_PICTURE = 160  # pixels a side up to which a picture is kept as it is
_SHARP = ";image-rendering:pixelated"
_HATCH = (
    '<svg class="defs" width="0" height="0" aria-hidden="true"><defs><pattern id="hatch" width="8" height="8" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M4 0V8" stroke="var(--ink)"/></pattern></defs></svg>'
)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --paper: #fafaf7; --ink: #1e1e1e; --soft: #55554f; --line: #c9c9c2;
  --local: #0072b2; --global: #e69f00; --other: #785e8c; --survivor: #00825f; --lost: #963c14; }
@media (prefers-color-scheme: dark) { :root { --paper: #191a1c; --ink: #ececea; --soft: #b4b4ae; --line: #45464a;
  --local: #56b4e9; --other: #b9a0cc; --survivor: #30c79c; --lost: #f08a5d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 110rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
p { margin: .25rem 0; max-width: 75ch; }
.columns { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.column > h3 { margin: 0; } .answer { font-weight: 600; }
figure { margin: 0; } figcaption { font-size: .875rem; color: var(--soft); }
.frames { display: grid; gap: .25rem; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.panel { position: relative; display: block; }
.picture { position: absolute; background-size: 100% 100%; print-color-adjust: exact; }
.panel svg { position: relative; display: block; width: 100%; height: auto; }
.veil { fill: var(--paper); fill-opacity: .74; shape-rendering: crispEdges; }
.original { max-width: 24rem; } .defs { position: absolute; }
.sign, .edge { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
.edge { stroke: var(--paper); stroke-width: 4; } .local .sign { stroke: var(--local); } .global .sign { stroke: var(--global); }
.global .edge { stroke: #1e1e1e; stroke-width: 3.5; }
.other .sign { stroke: var(--other); } .newline .sign { stroke: var(--ink); } .survivor .sign { stroke: var(--survivor); }
.lost .sign { stroke: var(--lost); stroke-width: 1.5; } .area { fill: transparent; }
.token { outline: none; }
.token:hover .veil, .token:focus .veil { fill: transparent; stroke: var(--ink); stroke-width: 1.5;
  vector-effect: non-scaling-stroke; }
.token:hover .sign, .token:focus .sign { stroke-width: 4; } .unseen { fill: url(#hatch); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: .5rem 0; list-style: none; }
.legend svg { width: 1.1rem; height: 1.1rem; vertical-align: -.2rem; margin-right: .35rem; }
.skip { position: absolute; left: -100vw; } .skip:focus { position: static; }
@media (forced-colors: active) { .panel { forced-color-adjust: none; } }
@media print { .skip { display: none; } }
"""


def page(shown: Shown) -> str:
    """The whole file, UTF-8. Every text of question, answer and names is escaped."""
    head = f"<title>{escape(shown.question)} — what the model was shown</title>"
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    start = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{policy}{view}{head}'
    style = f"<style>{_STYLE}{_pictures(shown)}</style></head><body><main>"
    return "\n".join([start, style, *_body(shown), "</main></body></html>", ""])


def _body(shown: Shown) -> Iterator[str]:
    yield f'{_HATCH}<h1 dir="auto">{escape(shown.question)}</h1>'
    yield "<p>What the model was shown to answer this, in tokens: before the encoder, after it, and past each layer.</p>"
    yield f'<div class="columns">{"".join(_heading(column) for column in shown.columns)}</div>'
    yield _legend()
    yield "<p>Point at a kept patch, tap it, or go to it with the Tab key: the patches that were merged into it light up.</p>"
    for number, band in enumerate(shown.bands):
        yield from _band(shown, band, number)


def _heading(column: Column) -> str:
    answer = escape(column.answer.text.strip() or "(nothing)")
    lines = f'<p>{counts_text(column)}, {average_text(column)}</p><p class="answer" dir="auto">{answer}</p>'
    return f'<section class="column"><h3>budget {escape(column.budget)}</h3>{lines}</section>'


def _legend() -> str:
    signs = [("local", "kept by the local scan"), ("global", "kept by the global scan"), ("other", "kept otherwise"),
             ("survivor", "went on past a pruning layer"), ("lost", "ended at a pruning layer")]  # fmt: skip
    entries = (
        f'<li><svg viewBox="0 0 20 20" aria-hidden="true"><g class="{sign}">{sign_of(sign, 2, 2, 18, 18)}</g></svg>{words}</li>'
        for sign, words in signs
    )
    hatched = (
        '<li><svg viewBox="0 0 20 20" aria-hidden="true"><path class="unseen" d="M0 0H20V20H0Z"/></svg>shown by no patch</li>'
    )
    return f'<ul class="legend">{"".join(entries)}{hatched}</ul>'


def _band(shown: Shown, band: Band, number: int) -> Iterator[str]:
    yield f"<h2>{escape(band.title)}</h2>{_skip(f'after-{number}')}"
    if band.note:
        yield f"<p>{escape(band.note)}</p>"
    texts = [band.texts(column, place) for place, column in enumerate(shown.columns)]
    yield _originals(shown, band)
    yield "<h3>Stage 1, in the encoder: kept, and merged into what was kept</h3>"
    yield _row(shown, band, [f"{kept}; {merged}" for kept, merged, *_ in texts], None)
    for order, layer in enumerate(shown.layers):
        yield f"<h3>Stage 2, before layer {layer} of the language model: what went on for this question</h3>"
        yield _row(shown, band, [text[2 + order] if 2 + order < len(text) else "" for text in texts], order)
    yield f'<div id="after-{number}"></div>'


def _originals(shown: Shown, band: Band) -> str:
    before = shown.columns[0].answer.images[band.visual].tokens_before
    caption = f"<figcaption><bdi>{escape(shown.names[band.visual])}</bdi>, {before} tokens</figcaption>"
    if not band.is_video:
        return f'<figure class="original">{plain(band.scenes[0], _name(band, 0), band.title)}{caption}</figure>'
    frames = (
        f"<figure>{plain(scene, _name(band, number), scene.place)}<figcaption>{scene.place}</figcaption></figure>"
        for number, scene in enumerate(band.scenes)
    )
    return f'<figure><div class="frames">{"".join(frames)}</div>{caption}</figure>'


def _row(shown: Shown, band: Band, texts: list[str], layer: int | None) -> str:
    figures = (
        _figure(band, place, f"budget {column.budget}: {text}", layer)
        if text
        else f"<p>budget {escape(column.budget)}: nothing was pruned here</p>"
        for place, (column, text) in enumerate(zip(shown.columns, texts, strict=True))
    )
    return f'<div class="columns">{"".join(figures)}</div>'


def _skip(to: str) -> str:
    return f'<a class="skip" href="#{to}">Skip these pictures</a>'


def _figure(band: Band, column: int, caption: str, layer: int | None) -> str:
    words = escape(caption)
    if not band.is_video:
        drawn = panel(band.scenes[0], _name(band, 0), column, f"{band.title}. {caption}", layer)
        return f"<figure>{drawn}<figcaption>{words}</figcaption></figure>"
    panels = (
        panel(scene, _name(band, number), column, f"{scene.place}. {caption}", layer)
        for number, scene in enumerate(band.scenes)
    )
    times = (f"<figcaption>{scene.place}</figcaption>" for scene in band.scenes)
    frames = "".join(f"<figure>{drawn}{time}</figure>" for drawn, time in zip(panels, times, strict=True))
    return f'<figure><div class="frames">{frames}</div><figcaption>{words}</figcaption></figure>'


def _pictures(shown: Shown) -> str:
    """Each picture once, as the ground of a class."""
    rules = (
        f".{_name(band, number)}{{background-image:url({_data_url(scene.picture)}){_SHARP * _is_small(scene.picture)}}}"
        for band in shown.bands
        for number, scene in enumerate(band.scenes)
    )
    return "\n".join(rules)


def _name(band: Band, scene: int) -> str:
    return f"p{band.visual}-{band.scenes[0].views[0].tile}-{scene}"


def _is_small(picture: Image.Image) -> bool:
    return max(picture.size) <= _SMALL_PICTURE


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    kind = "png" if _is_small(picture) else "jpeg"
    picture.save(buffer, kind, **({} if kind == "png" else {"quality": 88}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
