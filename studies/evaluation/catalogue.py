"""Every benchmark by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from studies.evaluation.task import Task
from studies.evaluation.tasks.gqa import Gqa
from studies.evaluation.tasks.mmbench import Mmbench
from studies.evaluation.tasks.mme import Mme
from studies.evaluation.tasks.pope import Pope
from studies.evaluation.tasks.refcoco import RefCoco
from studies.evaluation.tasks.scienceqa import ScienceQa
from studies.evaluation.tasks.textvqa import TextVqa
from studies.evaluation.tasks.tgif_qa import TgifQa
from studies.evaluation.tasks.video_qa import VideoQa
from studies.evaluation.tasks.vizwiz import VizWiz
from studies.evaluation.tasks.vqav2 import Vqav2
from vscan.errors import InvalidArgument

TASKS: Mapping[str, Task[Any]] = {
    task.name: task
    for task in (
        Gqa(),
        Mmbench(
            "mmbench", "MMBench", "mmbench_dev_20230712.tsv", "Answer with the option's letter from the given choices directly."
        ),
        Mmbench("mmbench-cn", "MMBench-CN", "mmbench_dev_cn_20231003.tsv", "请直接回答选项字母。"),
        Mme(),
        Pope(),
        ScienceQa(images_only=False),
        ScienceQa(images_only=True),
        Vqav2(),
        TextVqa(),
        VizWiz(),
        RefCoco("refcoco", "RefCOCO", "{val,testA,testB}"),
        RefCoco("refcoco+", "RefCOCO+", "{val,testA,testB}"),
        RefCoco("refcocog", "RefCOCOg", "{val,test}"),
        TgifQa(),
        VideoQa("msvd-qa", "MSVD-QA"),
        VideoQa("msrvtt-qa", "MSRVTT-QA"),
        VideoQa("activitynet-qa", "ActivityNet-QA", "v_"),
    )
}  # fmt: skip


def find_task(name: str) -> Task[Any]:
    """The task of that name. Raises InvalidArgument that names the nearest ones."""
    if name not in TASKS:
        near = get_close_matches(name, TASKS)
        raise InvalidArgument("task", f"{name!r} is none" + (f"; {' or '.join(near)}?" if near else ""), limit=", ".join(TASKS))
    return TASKS[name]


def listing() -> Iterator[str]:
    """Lines for `vscan eval --list`."""
    for task in TASKS.values():
        yield f"{task.name}  {task.title}"
        yield from (f"    {form}" for form in task.forms)
        if task.export_form:
            yield f"    --export: {task.export_form}"
