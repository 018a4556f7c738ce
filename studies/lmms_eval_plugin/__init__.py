"""A model for lmms-eval: its one command asks a running deployment.

    pip install vscan-serve lmms-eval 'filelock<4'
    lmms-eval --model vscan --model_args server=127.0.0.1:7070,budget=avg:11.1% --tasks pope,gqa --output_path results

lmms-eval finds `manifest` by the entry point that this distribution declares in the group `lmms_eval.models`. `model` is the
only file that imports lmms-eval; everything else works, and is tested, without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

_MODEL = "studies.lmms_eval_plugin.model"


def manifest() -> ModelManifest:
    """What lmms-eval registers: the model's name, and a class for each of the two ways in which its tasks pose questions."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("vscan", simple_class_path=f"{_MODEL}.SimpleVScan", chat_class_path=f"{_MODEL}.ChatVScan")
