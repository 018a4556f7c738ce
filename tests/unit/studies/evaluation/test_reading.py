"""The files of the field: what is read from them, and what is said of one that is bad."""

import json
from pathlib import Path
from typing import Any

import pytest

from studies.evaluation.catalogue import find_task
from studies.evaluation.pictures import inside
from studies.evaluation.reading import read_rows
from studies.evaluation.task import Sources, read_items
from tests.support.benchmarks import DATA, read
from vscan.errors import InvalidArgument

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
INSUFFICIENT = "When the provided information is insufficient, respond with 'Unanswerable'."


@pytest.mark.parametrize(
    ("form", "count", "first", "prompt", "image"),
    [
        (("gqa", "gqa/testdev_balanced_questions.json", "gqa/images"), 3, "201", f"Is the square red?\n{SHORT}", "n101.jpg"),
        (
            ("gqa", "gqa/llava_gqa_testdev_balanced.jsonl", "gqa/images", "gqa/testdev_balanced_questions.json"),
            2,
            "202",
            f"What is the red thing?\n{SHORT}",
            "n101.jpg",
        ),
        (
            ("pope", "pope/coco", "pope/val2014"),
            8,
            "adversarial/1",
            f"Is there a green square in the image?\n{SHORT}",
            "COCO_val2014_000000000012.jpg",
        ),
        (
            ("pope", "pope/llava_pope_test.jsonl", "pope/val2014", "pope/coco"),
            8,
            0,
            f"Is there a green square in the image?\n{SHORT}",
            "COCO_val2014_000000000012.jpg",
        ),
        (("mme", "mme", "mme"), 8, "code_reasoning/0001", f"Is the output of the code 'seven'?\n{SHORT}", "0001.png"),
        (
            ("mme", "mme/llava_mme.jsonl", "mme", "mme"),
            4,
            "existence/000000000032.jpg",
            f"Is there a square in this image?\n{SHORT}",
            "000000000032.jpg",
        ),
        (
            ("mmbench", "mmbench/mmbench_dev.tsv", "."),
            5,
            241,
            f"The picture is small.\nWhat shape is it?\nA. circle\nB. square\nC. star\n{LETTER}",
            None,
        ),
        (
            ("mmbench-cn", "mmbench/mmbench_dev_cn.tsv", "."),
            2,
            241,
            "图片很小。\n这是什么形状？\nA. 圆形\nB. 正方形\n请直接回答选项字母。",
            None,
        ),
        (
            ("scienceqa", "scienceqa/problems.json", "scienceqa/test"),
            3,
            "4",
            f"Context: O square, thou art so green.\nWhich figure of speech is used?\nA. chiasmus\nB. apostrophe\n{LETTER}",
            None,
        ),
        (
            ("scienceqa-img", "scienceqa/llava_test_CQM-A.json", "scienceqa/test", "scienceqa/problems.json"),
            1,
            "5",
            f"What is shown?\nA. a leaf\nB. a square\nC. a star\n{LETTER}",
            "image.png",
        ),
        (
            (
                *("vqav2", "vqav2/v2_OpenEnded_mscoco_val2014_questions.json", "vqav2/val2014"),
                "vqav2/v2_mscoco_val2014_annotations.json",
            ),
            3,
            21000,
            f"Is it a square?\n{SHORT}",
            "COCO_val2014_000000000021.jpg",
        ),
        (
            ("vqav2", "vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json", "vqav2/test2015"),
            1,
            22000,
            f"What colour is it?\n{SHORT}",
            "COCO_test2015_000000000022.jpg",
        ),
        (
            ("vqav2", "vqav2/llava_vqav2_mscoco_test-dev2015.jsonl", "vqav2/test2015"),
            1,
            22000,
            f"What colour is it?\n{SHORT}",
            "COCO_test2015_000000000022.jpg",
        ),
        (
            ("textvqa", "textvqa/TextVQA_0.5.1_val.json", "textvqa/train_images"),
            2,
            34602,
            f"what is the brand of this lamp?\n{SHORT}",
            "00aa11bb22cc33dd.jpg",
        ),
        (
            (
                *("textvqa", "textvqa/llava_textvqa_val_v051_ocr.jsonl", "textvqa/train_images"),
                "textvqa/TextVQA_0.5.1_val.json",
            ),
            2,
            "00aa11bb22cc33dd",
            f"what is the brand of this lamp?\nReference OCR token: LUMO, HOME\n{SHORT}",
            "00aa11bb22cc33dd.jpg",
        ),
        (
            ("vizwiz", "vizwiz/val.json", "vizwiz/val"),
            2,
            "VizWiz_val_00000000.jpg",
            f"What is this?\n{INSUFFICIENT}\n{SHORT}",
            "VizWiz_val_00000000.jpg",
        ),
        (
            ("vizwiz", "vizwiz/llava_test.jsonl", "vizwiz/test"),
            1,
            "VizWiz_test_00000000.jpg",
            f"What colour is it?\n{INSUFFICIENT}\n{SHORT}",
            "VizWiz_test_00000000.jpg",
        ),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_each_form_is_read(form: tuple[str, ...], count: int, first: Any, prompt: str, image: str | None) -> None:
    items = read(*form)
    assert (len(items), items[0].id, items[0].prompt) == (count, first, prompt)
    files = [picture.path.name for picture in items[0].images if picture.path]
    assert files == ([] if image is None else [image])


def test_questions_that_are_not_balanced_are_left_out() -> None:
    assert "204" not in {item.id for item in read("gqa", "gqa/testdev_balanced_questions.json", "gqa/images")}


def test_labels_come_from_the_annotations() -> None:
    release = {item.id: item.reference for item in read("gqa", "gqa/testdev_balanced_questions.json", "gqa/images")}
    llava = read("gqa", "gqa/llava_gqa_testdev_balanced.jsonl", "gqa/images", "gqa/testdev_balanced_questions.json")
    assert {item.id: item.reference for item in llava} == {name: release[name] for name in ("202", "203")}
    (unlabelled, _) = read("gqa", "gqa/llava_gqa_testdev_balanced.jsonl", "gqa/images")
    assert unlabelled.reference is None


def test_an_image_inside_the_table_is_an_image_and_may_be_named_by_its_row() -> None:
    items = {item.id: item for item in read("mmbench", "mmbench/mmbench_dev.tsv", ".")}
    assert items[252].images[0].load().data == items[1_000_252].images[0].load().data
    data = items[241].images[0].load().data
    assert data is not None
    assert data.startswith(b"\x89PNG")


def test_turns_are_made_where_a_table_has_none(tmp_path: Path) -> None:
    head, *rows = (DATA / "mmbench/mmbench_dev.tsv").read_text().splitlines()
    (tmp_path / "vanilla.tsv").write_text("\n".join([head, *rows[:2]]) + "\n")
    made = read_items(find_task("mmbench"), Sources(questions=tmp_path / "vanilla.tsv", images=tmp_path))
    given = read("mmbench", "mmbench/mmbench_dev.tsv", ".")
    assert {item.id: (item.prompt, item.reference) for item in made} == {
        item.id: (item.prompt, item.reference) for item in given
    }


def test_a_split_is_a_part_of_the_file() -> None:
    assert [item.id for item in read("scienceqa", "scienceqa/problems.json", "scienceqa/test", split="train")] == ["7"]
    with pytest.raises(InvalidArgument, match="no question in it"):
        read("mmbench", "mmbench/mmbench_dev.tsv", ".", split="test")


def test_a_suffix_of_ones_own_takes_the_place_of_the_benchmarks() -> None:
    own = read("gqa", "gqa/testdev_balanced_questions.json", "gqa/images", prompt_suffix="Be short.")
    llava = read("gqa", "gqa/llava_gqa_testdev_balanced.jsonl", "gqa/images", prompt_suffix="Be short.")
    none = read("gqa", "gqa/testdev_balanced_questions.json", "gqa/images", prompt_suffix="")
    assert own[1].prompt == llava[0].prompt == "What is the red thing?\nBe short."
    assert none[1].prompt == "What is the red thing?"


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "a/../../b.jpg", "", "..", "a\\b.jpg", "a\0.jpg"])
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    with pytest.raises(InvalidArgument, match="is not the name of a file in"):
        inside(Path("images"), name)


def test_a_name_may_lie_in_a_folder_below() -> None:
    assert inside(Path("images"), "a/b.jpg") == Path("images/a/b.jpg")


GQA_LINE = {"question_id": 1, "image": "n101.jpg", "text": "What?"}
POPE_LINE = {"question_id": 1, "image": "n101.jpg", "text": "Is there?", "label": "yes"}


@pytest.mark.parametrize(
    ("task", "name", "content", "problem"),
    [
        ("gqa", "q.json", "{\n\n!", r"q\.json:3: not JSON"),
        ("gqa", "q.json", "[]", r"q\.json: a JSON object is needed"),
        ("gqa", "q.json", json.dumps({"7": {"imageId": "n101"}}), r"q\.json: 7: question: a text is needed"),
        (
            "gqa",
            "q.json",
            json.dumps({"7": {"question": "?", "imageId": "../x"}}),
            r"q\.json: 7: imageId: .*x\.jpg' is not the",
        ),
        (
            "gqa",
            "q.json",
            json.dumps({"7": {"question": "?", "imageId": "gone"}}),
            r"1 of 1 files asked about are not there: .*gone\.jpg$",
        ),
        ("gqa", "q.json", "{}", r"q\.json: no question in it"),
        (
            "gqa",
            "q.jsonl",
            json.dumps(GQA_LINE) + "\n\n" + json.dumps(GQA_LINE | {"text": 3}),
            r"q\.jsonl:3: text: 3 where a text",
        ),
        ("gqa", "q.jsonl", json.dumps(GQA_LINE) + "\n[]", r"q\.jsonl:2: not a JSON object"),
        (
            "gqa",
            "q.jsonl",
            2 * (json.dumps(GQA_LINE) + "\n"),
            r"q\.jsonl:2: the question '1' is there twice, at .*q\.jsonl:1 too",
        ),
        ("gqa", "q.json", '{"7": {},\n"8": {},\n"7": {}}', r"q\.json: '7' is there twice in one object, in lines 1 and 3"),
        (
            "mmbench",
            "q.tsv",
            "index\tquestion\timage\tA\tB\n1\tq\taa==\tx\ty\n1\tq\taa==\tx\ty\n",
            r"q\.tsv:3: index: '1' is there twice, at .*q\.tsv:2 too",
        ),
        (
            "pope",
            "coco_pope_x.json",
            json.dumps(POPE_LINE | {"label": "maybe"}) + "\n{}",
            r"x\.json:1: label: 'maybe' is neither",
        ),
        ("mmbench", "q.tsv", "index\tquestion\n1\n", r"q\.tsv:2: not as many fields"),
        ("mmbench", "q.tsv", "index\tquestion\timage\tA\tB\n1\twhat\taa==\tx\t\n", r"q\.tsv:2: A: at least two options"),
        (
            "mmbench",
            "q.tsv",
            "index\tquestion\timage\tA\tB\tanswer\nx\twhat\taa==\tx\ty\tB\n",
            r"q\.tsv:2: index: \"x\" where a",
        ),
        (
            "mmbench",
            "q.tsv",
            "index\tquestion\timage\tA\tB\tanswer\n1\twhat\taa==\tx\ty\tC\n",
            r"q\.tsv:2: answer: 'C' is none",
        ),
        ("mmbench", "q.tsv", "index\tquestion\timage\tA\tB\n1\twhat\t7\tx\ty\n", r"q\.tsv:2: image: there is no row 7"),
        ("scienceqa", "q.json", "{}", r"pid_splits\.json: No such file"),
        (
            "vqav2",
            "q.json",
            json.dumps({"data_subtype": "val2014", "questions": [{"question_id": 1}]}),
            r"questions\[0\]: question",
        ),
        (
            "vizwiz",
            "q.json",
            json.dumps([{"image": "n101.jpg", "question": "?", "answers": [{}]}]),
            r"\[0\]: answers\[0\]: answer",
        ),
        (
            "vizwiz",
            "q.json",
            json.dumps([{"image": "n101.jpg", "question": "?", "answers": []}]),
            r"\[0\]: answers: at least one",
        ),
        (
            "mme",
            "q.jsonl",
            json.dumps({"question_id": "a/b.jpg", "image": 1, "text": "?"}),
            r"/1: 1 questions are asked, limit 2 an image",
        ),
    ],
)
def test_a_bad_file_is_named_with_line_and_field(tmp_path: Path, task: str, name: str, content: str, problem: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidArgument, match=problem):
        read_items(find_task(task), Sources(questions=tmp_path / name, images=DATA / "gqa/images"))


def test_an_option_that_a_benchmark_has_no_use_for_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="split: gqa takes none"):
        read("gqa", "gqa/testdev_balanced_questions.json", "gqa/images", split="val")


def test_a_suffix_that_is_not_there_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps(GQA_LINE))
    sources = Sources(questions=tmp_path / "q.jsonl", images=DATA / "gqa/images", prompt_suffix="Be short.")
    with pytest.raises(InvalidArgument, match=r"q\.jsonl:1: text: --prompt-suffix cannot replace"):
        read_items(find_task("gqa"), sources)


def test_a_table_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_bytes(b"a,b\n\xff,1\n")
    with pytest.raises(InvalidArgument, match=r"q\.csv: not UTF-8"):
        read_rows(tmp_path / "q.csv")


def test_an_unknown_benchmark_is_told_the_nearest() -> None:
    with pytest.raises(InvalidArgument, match="'mmebnch' is none; mmbench"):
        find_task("mmebnch")


@pytest.mark.parametrize(
    ("form", "labels", "problem"),
    [
        (
            ("video_qa/test_q.json", "video_qa"),
            '[{"question_id": "a", "answer": "x"}, {"question_id": "a", "answer": "y"}]',
            r"\[1\]: question_id: 'a' is there twice, at .*\[0\] too",
        ),
        (
            ("vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json", "vqav2/test2015"),
            '{"annotations": [{"question_id": 1}, {"question_id": 1}]}',
            r"annotations\[1\]: question_id: 1 is there twice, at .*annotations\[0\] too",
        ),
    ],
    ids=["video", "vqav2"],
)
def test_two_labels_of_one_id_are_named(tmp_path: Path, form: tuple[str, str], labels: str, problem: str) -> None:
    questions, images = form
    (tmp_path / "labels.json").write_text(labels)
    task = find_task("vqav2" if "vqav2" in questions else "msvd-qa")
    with pytest.raises(InvalidArgument, match=problem):
        task.read(Sources(questions=DATA / questions, images=DATA / images, annotations=tmp_path / "labels.json"))


def test_a_label_may_be_said_twice_and_not_in_two_ways(tmp_path: Path) -> None:
    for file in (DATA / "pope/coco").iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    file = tmp_path / "coco_pope_adversarial.json"
    first = file.read_text().splitlines()[0]
    sources = Sources(questions=DATA / "pope/llava_pope_test.jsonl", images=DATA / "pope/val2014", annotations=tmp_path)
    with file.open("a") as more:
        more.write(first + "\n")
    assert len(find_task("pope").read(sources)) == 8
    other = first.replace('"no"', '"yes"') if '"no"' in first else first.replace('"yes"', '"no"')
    with file.open("a") as more:
        more.write(other + "\n")
    with pytest.raises(InvalidArgument, match=r"coco_pope_adversarial\.json:\d+: another label than at .*adversarial\.json:1,"):
        find_task("pope").read(sources)
