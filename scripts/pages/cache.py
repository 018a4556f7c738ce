"""The tables of docs/cache.md, from the kept runs of `bench.codecs` and `bench.cache`; its text is written by hand."""

# ruff: noqa: E501  (a row of a Markdown table, and its caption, is one line)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.pages.markdown import table
from scripts.protos import ROOT

CODECS = ROOT / "bench" / "results" / "codecs-cpu-2-cores.json"
STREAM = ROOT / "bench" / "results" / "cache-cpu-2-cores.json"


def cache_page() -> str:
    """docs/cache.md with its tables written anew."""
    text = (ROOT / "docs" / "cache.md").read_text()
    for name, content in {"codecs": _codecs(), "bench": _stream()}.items():
        begin, end = f"<!-- {name}: written by make docs -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """Summary, other raw records, and the whole report."""
    report = json.loads(path.read_text())
    summary, *raw = report["raw"]
    return summary, raw, report


def _codecs() -> str:
    summary, raw, report = _read(CODECS)
    head = ["tokens", "encoding", "bytes", "of plain", "error of a token, mean", "largest", "write, ms", "read, ms"]
    where = report["environment"]
    return "\n".join(
        [
            f"`python -m bench.codecs` ([report](../bench/results/{CODECS.name})), {where['processor']}: entries of {summary['pictures']} "
            f"pictures from the embedded model ({summary['tokens']}), and of noise of 96 x 4096, where the times matter.",
            "The error of a token is the length of the difference over its own length.",
            "",
            table(head, [_codec_row(row) for row in raw if row["kind"] in ("codec", "large")]),
            "",
            f"Of {summary['questions']} questions about these pictures {summary['right_full']} were answered rightly with full tokens and "
            f"{summary['right_float8']} with float8; {summary['same_answer']} answers were the same.",
        ]
    )


def _codec_row(row: dict[str, Any]) -> list[str]:
    tokens = f"embedded, {row['dtype']}" if row["kind"] == "codec" else f"noise, {row['dtype']}"
    errors = [f"{row[name]:.2%}" if row[name] else "0" for name in ("row_error_mean", "row_error_max")]
    times = [f"{row[name]:.2f}" for name in ("write_ms", "read_ms")]
    return [tokens, row["codec"], f"{row['bytes']:,}", f"{row['size_share']:.1%}", *errors, *times]


def _stream() -> str:
    summary, raw, report = _read(STREAM)
    checks = {check["name"]: check for check in report["checks"]}
    rows = [
        [place, f"{share:.1%}", *(f"{ms:,.1f}" for ms in summary["latency_ms_by_place"][place].values())]
        for place, share in summary["share_by_place"].items()
    ]
    rows.append(["caches off", "", *(f"{ms:,.1f}" for ms in summary["latency_ms_cache_off"].values())])
    rate = summary["queries_per_second"]
    return "\n".join(
        [
            f"{summary['queries']:,} queries for {summary['distinct_images']} distinct images: {summary['vit_passes']} passes of the vision "
            f"transformer; {summary['hit_rate']:.1%} of the queries needed none.",
            f"{rate['cached']:.1f} queries a second from empty caches on, {rate['cache_off']:.1f} without caches "
            f"({checks['throughput_vs_cache_off']['value']:.1f} times).",
            f"A read of a signed 96 x 4096 bfloat16 entry through Redis to its tensor: "
            f"{checks['redis_hit_to_tensor_ms']['value']:.2f} ms (median).",
            *_probe(summary, raw),
            "",
            table(["found", "queries", "p50, ms", "p95, ms", "p99, ms"], rows),
        ]
    )


def _probe(summary: dict[str, Any], raw: list[dict[str, Any]]) -> list[str]:
    """What the time of look-ups told a tenant of another's images; nothing of a run from before that was measured."""
    aucs = {(row["tenant"], row["verb"], row["tier"]): row["auc"] for row in raw if row["kind"] == "tenant_probe"}
    if not aucs:
        return []
    others = ", ".join(f"{auc:.3f} ({verb}, {tier})" for (tenant, verb, tier), auc in aucs.items() if tenant == "prober")
    own = max(abs(auc - 0.5) for (tenant, *_), auc in aucs.items() if tenant == "owner")
    return [
        f"Another tenant's digest took longer to look up than an unknown one with probability {others}, over {summary['probe_pairs']:,} pairs each "
        f"(standard error {summary['probe_standard_error']:.3f}; 0.5: time tells nothing). One's own digest is told with up to {0.5 + own:.3f}."
    ]
