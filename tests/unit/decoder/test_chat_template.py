"""Templates of the kinds that checkpoints come with: who wrote what is known, and what cannot be followed is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder_service.chat import Chat, MediaPart, Part, Role, TextPart, Turn
from decoder_service.chat_template import ChatTemplate, Stretch
from embedded_model.export import CHAT_TEMPLATE as EMBEDDED
from tests.support.tokenizers import byte_level
from vscan.errors import CheckpointError, InvalidArgument

TOKENIZER = byte_level()
PARITY = (Path(__file__).parents[2] / "data" / "parity" / "llava15" / "chat_template.jinja").read_text()
# Images first, then texts, as the published LLaVA-1.5 checkpoints do.
IMAGES_FIRST = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}{% endif %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# Marked turns with a default system message, and `bos_token`.
MARKED = (
    "{{ bos_token }}{% if messages[0]['role'] != 'system' %}<|start|>system\nBe kind.<|end|>\n{% endif %}"
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TRIMMING = MARKED.replace("c['text']", "c['text'] | trim").replace("{{ m['content'] }}", "{{ m['content'] | trim }}")
# The system message is wanted as a string; turns must alternate.
STRING_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] | trim %}{% set messages = messages[1:] %}"
    "{% else %}{% set s = '' %}{% endif %}<|start|>{{ s }}<|end|>"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '\n' }}{% endfor %}"
)
STRINGS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}\n{% endfor %}"
TEMPLATES = {
    "parity": PARITY, "embedded": EMBEDDED, "images_first": IMAGES_FIRST, "marked": MARKED, "trimming": TRIMMING,
    "string_system": STRING_SYSTEM, "strings": STRINGS,
}  # fmt: skip


def template(source: str) -> ChatTemplate:
    return ChatTemplate(TOKENIZER, source)


def chat(*turns: tuple[Role, list[str | None]]) -> Chat:
    """Turns of texts, and images where None is."""

    def part(field: str, text: str | None) -> Part:
        return MediaPart(f"{field}.image") if text is None else TextPart(f"{field}.text", text)

    return Chat(
        tuple(
            Turn(f"messages[{i}]", role, tuple(part(f"messages[{i}].parts[{j}]", text) for j, text in enumerate(texts)))
            for i, (role, texts) in enumerate(turns)
        )
    )


def user(*texts: str | None) -> Chat:
    return chat((Role.USER, list(texts)))


def joined(stretches: list[Stretch]) -> str:
    return "".join(stretch.text for stretch in stretches)


def as_transformers_renders(source: str, question: Chat) -> str:
    conversation = [
        {
            "role": turn.role.value,
            "content": [
                {"type": "image"} if isinstance(p, MediaPart) else {"type": "text", "text": p.text} for p in turn.parts
            ],
        }
        for turn in question.turns
    ]
    return str(TOKENIZER.apply_chat_template(conversation, chat_template=source, tokenize=False, add_generation_prompt=True))


CONVERSATION = chat(
    (Role.SYSTEM, ["Answer in one word."]),
    (Role.USER, [None, "what is this?", None]),
    (Role.ASSISTANT, ["A <image>."]),
    (Role.USER, ["  and <image> this? "]),
)


@pytest.mark.parametrize("source", [EMBEDDED, IMAGES_FIRST, MARKED, TRIMMING])
def test_the_prompt_is_what_transformers_renders(source: str) -> None:
    assert joined(template(source).render(CONVERSATION)) == as_transformers_renders(source, CONVERSATION)


def test_each_character_has_its_author() -> None:
    assert template(PARITY).render(user(None, "is it <image>?", "or")) == [
        Stretch("USER: <image> "),
        Stretch("is it <image>?", 0),
        Stretch(" "),
        Stretch("or", 1),
        Stretch(" ASSISTANT:"),
    ]


def test_what_a_template_trims_is_trimmed() -> None:
    stretches = template(TRIMMING).render(user(None, "  is it? \n"))
    assert Stretch("is it?", 0) in stretches
    assert joined(stretches) == as_transformers_renders(TRIMMING, user(None, "  is it? \n"))


@given(
    st.lists(st.text(alphabet=" \n\tab<image>", max_size=8), min_size=1, max_size=4),
    st.sampled_from([IMAGES_FIRST, MARKED, TRIMMING]),
)
def test_any_texts_are_followed(texts: list[str], source: str) -> None:
    question = user(None, *texts)
    stretches = template(source).render(question)
    assert joined(stretches) == as_transformers_renders(source, question)
    assert {s.part: s.text.strip() for s in stretches if s.part is not None} == {
        i: text.strip() for i, text in enumerate(texts)
    }


def test_content_that_is_wanted_as_a_string_is_given_as_one() -> None:
    question = chat((Role.SYSTEM, ["Be ", "brief. "]), (Role.USER, [None, "what?"]))
    assert joined(template(STRING_SYSTEM).render(question)) == "<|start|>Be brief.<|end|><image>what?\n"
    assert joined(template(STRINGS).render(user("what", " now?"))) == "user: what now?\n"
    with pytest.raises(InvalidArgument, match=r"messages\[0\]\.parts\[1\]\.image: .* takes no images"):
        template(STRINGS).render(user("what?", None))


@pytest.mark.parametrize(("source", "role"), [(PARITY, Role.SYSTEM), (PARITY, Role.ASSISTANT)])
def test_a_role_without_a_place_is_refused(source: str, role: Role) -> None:
    question = chat((Role.USER, ["a"]), (role, ["b"]), (Role.USER, ["c"]))
    with pytest.raises(InvalidArgument, match=rf"messages\[1\]\.role: .* no place for {role}"):
        template(source).render(question)


def test_a_template_that_drops_a_message_is_refused() -> None:
    source = "{% for m in messages if m['role'] == 'user' %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}"
    with pytest.raises(InvalidArgument, match=r"messages\[0\]\.parts\[0\]\.text: .* no place"):
        template(source).render(chat((Role.SYSTEM, ["be brief"]), (Role.USER, ["hello"])))


def test_a_templates_own_refusal_is_told() -> None:
    with pytest.raises(InvalidArgument, match=r"messages: .* refuses them: roles must alternate"):
        template(STRING_SYSTEM).render(chat((Role.USER, ["a"]), (Role.USER, ["b"])))


@pytest.mark.parametrize("change", ["c['text'] | upper", "c['text'][:5]", "c['text'] | replace('a', 'b')", "c['text'] | e"])
def test_a_text_that_is_changed_otherwise_is_refused(change: str) -> None:
    with pytest.raises(InvalidArgument, match=r"messages\[0\]\.parts\[1\]\.text: .*(changes this text|no place)"):
        template(PARITY.replace("c['text'] }}", change + " }}")).render(user(None, "what about <that>?"))


def test_templates_run_in_a_sandbox() -> None:
    with pytest.raises(InvalidArgument, match="refuses them"):
        template("{{ messages.__class__.__mro__[1].__subclasses__() }}").render(user("a"))


def test_texts_are_not_templates() -> None:
    assert Stretch("{{ 7 * 7 }}{% raw %}", 0) in template(MARKED).render(user("{{ 7 * 7 }}{% raw %}"))


def write(directory: Path, name: str, content: str | dict[str, object]) -> None:
    (directory / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_where_the_template_is_looked_for(tmp_path: Path) -> None:
    assert ChatTemplate.open(tmp_path, TOKENIZER) is None
    files: list[tuple[str, str | dict[str, object]]] = [
        ("processor_config.json", {"chat_template": "{{ 'processor_config' }}"}),
        ("chat_template.json", {"chat_template": "{{ 'chat_template.json' }}"}),
        ("chat_template.jinja", "{{ 'chat_template.jinja' }}"),
    ]
    for name, content in files:
        write(tmp_path, name, content)
        found = ChatTemplate.open(tmp_path, TOKENIZER)
        assert found is not None
        assert found.render(user(None)) == [Stretch(name.removesuffix(".json") if "processor" in name else name)]


def test_of_named_templates_the_default_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tools", "template": "{{ 'tools' }}"}, {"name": "default", "template": "{{ 'default' }}"}]
    write(tmp_path, "chat_template.json", {"chat_template": named})
    found = ChatTemplate.open(tmp_path, TOKENIZER)
    assert found is not None
    assert joined(found.render(user(None))) == "default"


def test_an_unreadable_template_file_stops_the_start(tmp_path: Path) -> None:
    write(tmp_path, "chat_template.json", "{")
    with pytest.raises(CheckpointError, match="chat template cannot be read"):
        ChatTemplate.open(tmp_path, TOKENIZER)
