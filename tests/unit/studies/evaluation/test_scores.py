"""Each benchmark's rule, on answers whose score was worked out by hand."""

import json
from pathlib import Path

import pytest

from studies.evaluation.catalogue import find_task
from studies.evaluation.report import Traffic
from studies.evaluation.task import Item, Score
from studies.evaluation.tasks.mme import yes_or_no
from studies.evaluation.tasks.pope import Confusion, says_yes
from studies.evaluation.tasks.vqav2 import VqaLabel
from tests.support.benchmarks import DATA, read, score
from vscan.errors import InvalidArgument

VQAV2 = (
    *("vqav2", "vqav2/v2_OpenEnded_mscoco_val2014_questions.json", "vqav2/val2014"),
    "vqav2/v2_mscoco_val2014_annotations.json",
)


def test_gqa_is_exact_match_after_case_and_full_stop() -> None:
    items = read("gqa", "gqa/testdev_balanced_questions.json", "gqa/images")
    # yes = yes; square = square; "on the left" is not left
    scores = score("gqa", items, ["Yes.", " Square ", "on the left"])
    assert (scores.metric, scores.n) == ("accuracy", 3)
    assert scores.value == pytest.approx(200 / 3)
    assert scores.categories["answer"] == {"binary": Score(50.0, 2), "open": Score(100.0, 1)}
    assert scores.categories["structural type"] == {
        "choose": Score(0.0, 1),
        "query": Score(100.0, 1),
        "verify": Score(100.0, 1),
    }


def test_gqa_leaves_unbalanced_questions_out_of_llavas_form_too(tmp_path: Path) -> None:
    folder = DATA / "gqa"
    labels = json.loads((folder / "testdev_balanced_questions.json").read_text())
    rows = [json.loads(line) for line in (folder / "llava_gqa_testdev_balanced.jsonl").read_text().splitlines()]
    left_out = str(rows[0]["question_id"])
    labels[left_out]["isBalanced"] = False
    (tmp_path / "all.json").write_text(json.dumps(labels))
    items = read("gqa", "gqa/llava_gqa_testdev_balanced.jsonl", "gqa/images", str(tmp_path / "all.json"))
    assert [item.id for item in items] == [str(row["question_id"]) for row in rows[1:]]


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Yes", True),
        ("no", False),
        ("No, there is not", False),  # the comma goes, so the word is No
        ("There is not a dog", False),
        ("There are none", True),  # none is not one of the words
        ("NO", True),  # nor is this
        ("Yes. No.", True),  # only the text up to the first full stop counts
        ("no.", False),
        ("No\n", False),  # the end of the line is not a part of the answer
        ("nothing", True),
        ("", True),
        ("Yes\nno", True),  # words are what stands between blanks
    ],
)
def test_pope_takes_everything_for_yes_that_has_no_no(text: str, yes: bool) -> None:
    assert says_yes(text) == yes


def test_pope_tells_the_four_counts_apart() -> None:
    numbers = Confusion(tp=3, fp=1, tn=4, fn=2).numbers()
    assert numbers == pytest.approx({"F1": 200 / 3, "accuracy": 70, "precision": 75, "recall": 60, "yes ratio": 40})


def test_pope_counts_by_the_way_of_drawing() -> None:
    items = read("pope", "pope/coco", "pope/val2014")
    said = {
        "adversarial/1": "Yes",  # square: there
        "adversarial/2": "yes",  # circle: not there
        "popular/1": "no",  # square: there
        "popular/2": "No",  # person: not there
        "random/1": "Yes",  # square: there
        "random/2": "no",  # dog: not there
        "random/3": "no",  # square: there
        "random/4": "Yes, there is",  # car: not there
    }
    scores = score("pope", items, said)
    # adversarial: TP 1 FP 1: precision 1/2, recall 1, F1 2/3, accuracy 1/2, yes 1
    # popular: FN 1 TN 1: no yes at all: precision, recall and F1 are 0, accuracy 1/2, yes 0
    # random: TP 1 FP 1 TN 1 FN 1: precision, recall, F1 and accuracy 1/2, yes 1/2
    assert {name: score.value for name, score in scores.categories["F1"].items()} == {
        "adversarial": pytest.approx(200 / 3),
        "popular": 0.0,
        "random": pytest.approx(50.0),
    }
    assert scores.categories["recall"]["adversarial"] == Score(100.0, 2)
    assert scores.categories["yes ratio"] == {
        "adversarial": Score(100.0, 2),
        "popular": Score(0.0, 2),
        "random": Score(50.0, 4),
    }
    assert scores.metric == "F1"
    assert scores.value == pytest.approx((200 / 3 + 0 + 50) / 3)
    assert scores.further["accuracy"] == pytest.approx(50.0)
    assert scores.further["precision"] == pytest.approx((50 + 0 + 50) / 3)


def test_popes_forms_score_alike() -> None:
    release, llava = (
        read("pope", *form)
        for form in [("pope/coco", "pope/val2014"), ("pope/llava_pope_test.jsonl", "pope/val2014", "pope/coco")]
    )
    answers = ["Yes", "No", "no", "no", "yes", "no", "no", "no"]
    assert score("pope", release, answers) == score("pope", llava, answers)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes", "yes"),
        ("NO.", "no"),
        (" yes", "yes"),
        ("a yes", "other"),  # not within the first four characters
        ("eyes", "yes"),  # within them, wherever
        ("I know", "other"),
        ("know", "no"),
        ("maybe", "other"),
        ("", "other"),
    ],
)
def test_mme_looks_at_the_first_four_characters(text: str, said: str) -> None:
    assert yes_or_no(text) == said


def test_mme_scores_questions_and_pairs() -> None:
    items = read("mme", "mme", "mme")
    said = {
        "existence/000000000031": "Yes",
        "existence/000000000031#2": "No",
        "existence/000000000032": "yes",
        "existence/000000000032#2": "yes",  # wrong
        "landmark/1a2b": "maybe",  # neither
        "landmark/1a2b#2": "no",
        "code_reasoning/0001": "Yes, it is",
        "code_reasoning/0001#2": "no",
    }
    scores = score("mme", items, said)
    # existence: 3 of 4 answers, 1 of 2 images: 75 + 50; landmark: 1 of 2, 0 of 1: 50; code_reasoning: 100 + 100
    assert scores.categories == {
        "perception": {"existence": Score(125.0, 4), "landmark": Score(50.0, 2)},
        "cognition": {"code_reasoning": Score(200.0, 2)},
    }
    assert (scores.value, scores.unit) == (375.0, "points")
    assert scores.further == {"perception": 175.0, "cognition": 200.0}
    assert list(scores.counts.values()) == [1]
    assert "missing in the sums: count, position, color" in scores.notes[0]


def test_mme_needs_both_questions_of_an_image() -> None:
    items = read("mme", "mme", "mme")[:3]
    with pytest.raises(InvalidArgument, match="existence/000000000031: 1 questions were asked, limit 2 an image"):
        score("mme", items, ["yes"] * 3)


def test_mme_refuses_an_image_without_its_pair_before_anything_is_asked(tmp_path: Path) -> None:
    line = {"question_id": "count/1.jpg", "image": "count/1.jpg", "text": "One?"}
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line | {"text": text}) + "\n" for text in ("1?", "2?", "3?")))
    with pytest.raises(InvalidArgument, match=r"count/1\.jpg: 3 questions are asked, limit 2 an image"):
        read("mme", str(tmp_path / "q.jsonl"), "mme")


@pytest.mark.parametrize(("limit", "asked"), [(1, 2), (2, 2), (3, 4), (99, 8)])
def test_a_trial_of_mme_has_whole_images(limit: int, asked: int) -> None:
    items = read("mme", "mme", "mme", limit=limit)
    assert len(items) == asked
    assert score("mme", items, ["yes"] * asked).n == asked


def test_a_trial_of_mmbench_has_every_turn_of_its_questions() -> None:
    items = read("mmbench", "mmbench/mmbench_dev.tsv", ".", limit=1)
    assert [item.id for item in items] == [241, 1_000_241, 2_000_241]
    more = read("mmbench", "mmbench/mmbench_dev.tsv", ".", limit=4)
    assert [item.id for item in more[3:]] == [252, 1_000_252]


def test_mmbench_wants_all_turns_right() -> None:
    items = read("mmbench", "mmbench/mmbench_dev.tsv", ".")
    said = {
        241: "B",
        1_000_241: "A",
        2_000_241: "C. square",  # all three turns of 241 are right
        252: "B",
        1_000_252: "the sky",  # nothing is found in one turn of 252
    }
    scores = score("mmbench", items, said)
    assert (scores.metric, scores.value, scores.n) == ("CircularEval accuracy", 50.0, 2)
    assert scores.further == {"VanillaEval accuracy": 100.0}
    assert scores.categories["l2-category"] == {
        "coarse_perception": Score(100.0, 1),
        "finegrained_perception (instance-level)": Score(0.0, 1),
    }
    assert scores.categories["category"]["attribute_recognition"] == Score(0.0, 1)
    assert scores.counts == {"answers asked for": 5, "answers in which no option was found (wrong)": 1}


def test_mmbench_counts_a_question_whose_first_turn_is_wrong_as_wrong() -> None:
    items = read("mmbench", "mmbench/mmbench_dev.tsv", ".")
    scores = score("mmbench", items, {241: "A", 1_000_241: "A", 2_000_241: "C", 252: "blue", 1_000_252: "A"})
    assert (scores.value, scores.further["VanillaEval accuracy"]) == (50.0, 50.0)


def test_mmbench_says_so_where_turns_are_missing() -> None:
    items = read("mmbench", "mmbench/mmbench_dev.tsv", ".")[:3]
    scores = score("mmbench", items, ["B", "B", "A"])
    assert scores.value == 100.0
    assert "2 questions were not asked in all their turns" in scores.notes[-1]


def test_mmbench_cn_finds_options_by_their_text() -> None:
    items = read("mmbench-cn", "mmbench/mmbench_dev_cn.tsv", ".")
    assert score("mmbench-cn", items, ["是正方形", "A"]).value == 100.0


def test_mmbench_is_handed_in_as_a_table(tmp_path: Path) -> None:
    items = read("mmbench", "mmbench/mmbench_dev.tsv", ".")
    find_task("mmbench").export(items, {item.id: f"B\tor {item.id}" for item in items}, tmp_path / "out.tsv")
    head, first, second, *_ = (tmp_path / "out.tsv").read_text().splitlines()
    assert head.split("\t") == ["index", "question", "A", "B", "C", "prediction"]
    assert first == '241\tWhat shape is it?\tcircle\tsquare\tstar\t"B\tor 241"'
    assert second == '252\tWhat colour is it?\tred\tblue\t\t"B\tor 252"'


def test_mmbenchs_server_gets_a_spreadsheet(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    items = read("mmbench", "mmbench/mmbench_dev.tsv", ".")
    said = {item.id: "=1+1 \x07是" if item.id == 241 else "B" for item in items}
    find_task("mmbench").export(items, said, tmp_path / "out.xlsx")
    head, first, *others = openpyxl.load_workbook(tmp_path / "out.xlsx").active.values
    assert head == ("index", "question", "A", "B", "C", "prediction")
    assert first == (241, "What shape is it?", "circle", "square", "star", "=1+1 是")
    assert len(others) == len(items) - 1
    cell = openpyxl.load_workbook(tmp_path / "out.xlsx").active["F2"]
    assert cell.data_type == "s"  # no formula


def test_scienceqa_has_the_averages_of_the_release() -> None:
    items = read("scienceqa", "scienceqa/problems.json", "scienceqa/test")
    # 4: language, hint, grade 11: right; 5: natural, image, grade 2: right; 6: social, neither, grade 6: no letter
    scores = score("scienceqa", items, {"4": "B", "5": "B. a square", "6": "Bern"})
    assert scores.metric == "accuracy"
    assert scores.value == pytest.approx(200 / 3)
    assert scores.categories["average"] == {
        "NAT": Score(100.0, 1),
        "SOC": Score(0.0, 1),
        "LAN": Score(100.0, 1),
        "TXT": Score(100.0, 1),
        "IMG": Score(100.0, 1),
        "NO": Score(0.0, 1),
        "G1-6": Score(50.0, 2),
        "G7-12": Score(100.0, 1),
    }
    assert list(scores.counts.values()) == [1]


def test_scienceqas_questions_with_an_image_are_a_benchmark_of_their_own() -> None:
    items = read("scienceqa-img", "scienceqa/problems.json", "scienceqa/test")
    scores = score("scienceqa-img", items, ["A"])
    assert ([item.id for item in items], scores.metric, scores.value) == (["5"], "IMG accuracy", 0.0)


def test_vqav2_normalises_unless_all_people_agree() -> None:
    scores = score("vqav2", read(*VQAV2), {21000: "Yes.", 21001: "one", 21002: "A red box"})
    # 21000: all said yes; handed in is "yes": 1
    # 21001: 1, One. and 2 become 1 (nine times) and 2: 1
    # 21002: "red box" is said twice (red-box): 0.6
    assert scores.value == pytest.approx(100 * (1 + 1 + 0.6) / 3)
    by_type = scores.categories["answer type"]
    assert {name: score.value for name, score in by_type.items()} == {
        "number": 100.0,
        "other": pytest.approx(60.0),
        "yes/no": 100.0,
    }
    assert set(scores.categories["question type"]) == {"is it a", "how many", "what is"}


@pytest.mark.parametrize(("last", "points"), [("The dog", 0), ("dog", 100)])
def test_vqav2_compares_labels_that_are_one_text_as_they_are(last: str, points: float) -> None:
    # What is handed in is "dog", which is none of ten times "The dog"; where one label differs all lose their articles.
    item = Item(id=1, prompt="What is it?", reference=VqaLabel(("The dog",) * 9 + (last,)))
    assert score("vqav2", [item], ["The dog"]).value == points


def test_vizwiz_scores_what_would_be_handed_in() -> None:
    # EvalAI's processor takes a comma out, where the normalisation alone makes a blank of it.
    item = Item(id="1", prompt="What is it?", reference=VqaLabel(("redblue",) * 10))
    assert score("vizwiz", [item], ["red,blue"]).value == 100


def test_vqav2_is_handed_in_by_question(tmp_path: Path) -> None:
    items = read("vqav2", "vqav2/llava_vqav2_mscoco_test-dev2015.jsonl", "vqav2/test2015")
    find_task("vqav2").export(items, {22000: "The Blue."}, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == [{"question_id": 22000, "answer": "blue"}]


def test_textvqa_normalises_always() -> None:
    items = read("textvqa", "textvqa/TextVQA_0.5.1_val.json", "textvqa/train_images")
    # lumo: five of ten: 1; "2,008" and "2008" are the same text, three in all: 0.9
    assert score("textvqa", items, ["Lumo", "2,008"]).value == pytest.approx(95.0)
    # "0" is what `none` becomes, said once: 0.3; "the year 2008" without its article: seven: 1
    assert score("textvqa", items, ["none", "year 2008?"]).value == pytest.approx(65.0)


def test_textvqas_answers_are_found_by_image_and_question() -> None:
    release = read("textvqa", "textvqa/TextVQA_0.5.1_val.json", "textvqa/train_images")
    llava = read(
        *("textvqa", "textvqa/llava_textvqa_val_v051_ocr.jsonl", "textvqa/train_images"), "textvqa/TextVQA_0.5.1_val.json"
    )
    assert [item.reference for item in llava] == [item.reference for item in release]


def test_textvqa_is_handed_in_by_question_only(tmp_path: Path) -> None:
    llava = read("textvqa", "textvqa/llava_textvqa_val_v051_ocr.jsonl", "textvqa/train_images")
    with pytest.raises(InvalidArgument, match="export: the file of questions has no question ids"):
        find_task("textvqa").export(llava, {item.id: "x" for item in llava}, tmp_path / "out.json")
    release = read("textvqa", "textvqa/TextVQA_0.5.1_val.json", "textvqa/train_images")
    find_task("textvqa").export(release, {item.id: "Lumo!" for item in release}, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())[0] == {"question_id": 34602, "answer": "lumo"}


def test_vizwiz_compares_with_labels_as_they_are() -> None:
    items = read("vizwiz", "vizwiz/val.json", "vizwiz/val")
    # unanswerable: eight of ten: 1; green: twice, since the label Green is not normalised: 0.6
    scores = score("vizwiz", items, ["Unanswerable", "Green."])
    assert scores.value == pytest.approx(80.0)
    by_type = scores.categories["answer type"]
    assert {name: score.value for name, score in by_type.items()} == {"other": pytest.approx(60.0), "unanswerable": 100.0}
    assert scores.counts == {"answered 'unanswerable'": 1}


def test_vizwiz_is_handed_in_by_image(tmp_path: Path) -> None:
    items = read("vizwiz", "vizwiz/llava_test.jsonl", "vizwiz/test")
    find_task("vizwiz").export(items, {item.id: "Unanswerable" for item in items}, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == [{"image": "VizWiz_test_00000000.jpg", "answer": "unanswerable"}]


def test_visual_tokens_are_means_over_answers_about_images() -> None:
    traffic = Traffic()
    about_an_image = {
        "usage": {
            "visual_tokens_unreduced": 576,
            "visual_tokens": 96,
            "visual_tokens_average": 64.0,
            "completion_tokens": 1,
        },
        "timings": {"time_to_first_token_ms": 10.0},
        "finish_reason": "end_of_sequence",
        "images": [{"place": "redis"}],
        "pruning": [{"layer": 16, "tokens_after": 32}],
    }
    nothing = {
        "visual_tokens_unreduced": 0,
        "visual_tokens": 0,
        "visual_tokens_average": 0.0,
        "completion_tokens": 3,
    }
    traffic.add(about_an_image)
    traffic.add(about_an_image | {"images": [], "pruning": [], "usage": nothing})
    summary = traffic.summary()
    assert summary["visual_tokens"] == {
        "unreduced": 576,
        "after_stage_1": 96,
        "after_layer": {"16": 32},
        "average_over_layers": 64,
    }
    assert (summary["completion_tokens"], summary["places"]) == (2, {"redis": 1})
    assert Traffic().summary() == {}
