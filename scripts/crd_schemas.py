"""Writes the JSON schemas of the custom resources that `k8s/` uses to `tests/data/crds`, one file a kind.

They are made of pydantic models that their packages made of the projects' own definitions. None is a dependency; run this in
an environment of its own, with the versions that `tests/data/crds/README.md` names:

    python -m venv /tmp/crds && /tmp/crds/bin/pip install cloudcoil.models.keda==2.16.1.0 …
    /tmp/crds/bin/python scripts/crd_schemas.py
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "data" / "crds"
MODELS = {
    "cloudcoil.models.keda.v1alpha1": ("ScaledObject",),
    "cloudcoil.models.cert_manager.v1": ("Certificate", "Issuer"),
    "cloudcoil.models.prometheus_operator.v1": ("ServiceMonitor", "PrometheusRule"),
}
_DROPPED = {"title", "default", "description"}


def main() -> None:
    """Replaces the files."""
    for module, kinds in MODELS.items():
        for kind in kinds:
            model = getattr(importlib.import_module(module), kind)
            schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_closed(model.model_json_schema())}
            (FOLDER / f"{kind}.json").write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n")


def _closed(schema: Any) -> Any:
    """Without what is for people, without null for what may be left out, and with no other fields than those named."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        return _closed(kinds[0])
    kept = {
        name: _closed(value) for name, value in schema.items() if name not in _DROPPED and name not in ("properties", "anyOf")
    }
    if kinds:
        kept["anyOf"] = _closed(kinds)
    if fields := schema.get("properties"):
        kept["properties"] = {name: _closed(value) for name, value in fields.items()}
        kept.setdefault("additionalProperties", False)
    return kept


if __name__ == "__main__":
    main()
