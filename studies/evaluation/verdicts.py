"""What a judge model said of answers: the results of `eval_video_qa.py` of Video-ChatGPT and Video-LLaVA.

    {"q1": [{"pred": "yes", "score": 4}, {"q": "…", "a": "…", "pred": "the answer that was judged"}], …}

or lines of JSON, `{"id": "q1", "pred": "yes", "score": 4}`. Video-LLaVA's script counts so: accuracy is the share of "yes"
among the verdicts that say yes or no; the score is the sum of `int(score)`, over all verdicts. One whose score `int` does not
take (the text "4.8", none) adds nothing and is not looked at further: it counts in the mean as 0, and not in the accuracy.
Video-ChatGPT's script (`evaluate_activitynet_qa.py`), from which that one was made, ends with an error there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.evaluation.reading import Row, read_json, read_rows, rows_by_id
from studies.evaluation.task import Scores
from vscan.errors import InvalidArgument

BEST = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """One verdict.

    Attributes:
        said: "yes", "no", or what else the judge said, in lower case; empty where the script does not look at it.
        score: 0 to 5 as it is asked for; `None`: one that the script cannot read.
        answer: what was judged, where the file has it.
    """

    said: str
    score: int | None
    answer: str | None = None


def read_verdicts(path: Path) -> dict[str, Verdict]:
    """Verdicts by question. Raises InvalidArgument for a file of something else."""
    return dict(_entries(path))


def score_verdicts(verdicts: Mapping[str, Verdict], answers: Mapping[str, str], path: Path) -> Scores:
    """The field's numbers over the questions that were asked.

    Raises:
        InvalidArgument: a question has no verdict, or one of another answer than this run's.
    """
    # Video-ChatGPT's script numbers the questions of one name.
    found = {name: verdicts.get(name) or verdicts.get(f"{name}_0") for name in answers}
    missing = [name for name, verdict in found.items() if verdict is None]
    if missing:
        raise InvalidArgument("--judged", f"{path}: no verdict on {missing[0]!r}; {len(missing)} of {len(answers)} have none")
    asked = [verdict for verdict in found.values() if verdict is not None]
    for (name, answer), verdict in zip(answers.items(), asked, strict=True):
        if verdict.answer is not None and verdict.answer.strip() != answer.strip():
            told = f"{name!r}: the verdict is on {verdict.answer[:40]!r}, this run has {answer[:40]!r}"
            raise InvalidArgument("--judged", f"{path}: {told}")
    yes = sum("yes" in verdict.said for verdict in asked)
    no = sum("yes" not in verdict.said and "no" in verdict.said for verdict in asked)
    return Scores(
        metric="accuracy in % (judge's)",
        value=100 * yes / (yes + no) if yes + no else 0.0,
        n=len(asked),
        unit="",
        further={"mean score of 0 to 5 (judge's)": sum(verdict.score or 0 for verdict in asked) / len(asked) if asked else 0.0},
        counts={
            "yes": yes,
            "no": no,
            "verdicts that say neither (not in the accuracy)": len(asked) - yes - no,
            "verdicts whose score cannot be read (0 in the mean)": sum(verdict.score is None for verdict in asked),
            "scores that are not 0 to 5 (in the mean as they are)": sum(
                verdict.score is not None and not 0 <= verdict.score <= BEST for verdict in asked
            ),
        },
    )


def _entries(path: Path) -> Iterator[tuple[str, Verdict]]:
    document = read_json(path) if path.suffix == ".json" else None
    if isinstance(document, dict):
        for name, pair in document.items():
            yield name, _of_pair(Row(f"{path}: {name}", {"verdict": pair}), pair)
        return
    for name, row in rows_by_id(read_rows(path), "id").items():
        yield str(name), _verdict(row.values, None)


def _of_pair(row: Row, pair: Any) -> Verdict:
    if not isinstance(pair, list) or not pair:
        raise row.bad("verdict", "a list of the judge's words and of what was judged is needed")
    judged = pair[1].get("pred") if len(pair) > 1 and isinstance(pair[1], dict) else None
    return _verdict(pair[0], judged if isinstance(judged, str) else None)


def _verdict(said: Any, answer: str | None) -> Verdict:
    """As Video-LLaVA's script takes it: first the score, then the word."""
    told = said if isinstance(said, Mapping) else {}
    try:
        score = int(told.get("score"))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return Verdict("", None, answer)
    word = told.get("pred")
    return Verdict(word.lower() if isinstance(word, str) else "", score, answer)
