"""What `--model_args` may say, as values of the SDK."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from vscan.errors import InvalidArgument
from vscan_client.cli.connection import DEFAULT_SERVER, DEFAULT_TIMEOUT_S, Connection
from vscan_client.cli.questions import QuestionOptions

T = TypeVar("T")
Given = str | int | float | bool
DEFAULT_CONCURRENT = 8
# How a token is chosen is the task's to say, or that of `--gen_kwargs`.
_BUDGETS = ("reduction", "budget", "local_share", "merge", "rater", "keep", "positions", "seed", "priority", "frames", "fps")
_CONNECTION = ("server", "tls_ca", "tls_cert", "tls_key", "insecure", "token_file", "timeout")
_OWN = ("concurrent", "system_prompt")
# What lmms-eval hands to every model; nothing here has a batch or a device.
_OF_LMMS_EVAL = ("batch_size", "max_batch_size", "device")


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a run.

    Attributes:
        connection: where the deployment is.
        budgets: stage 1, stage 2, the frames of videos; what is not given is the deployment's.
        concurrent: questions under way at once.
        system_prompt: stands before every question that has no system message of its own; empty: none.
    """

    connection: Connection
    budgets: QuestionOptions
    concurrent: int
    system_prompt: str


def parse_arguments(given: dict[str, Given]) -> Arguments:
    """Reads arguments as lmms-eval splits them: texts, and numbers and truths where they look like such.

    A text in quotes may hold commas: `keep='33%,50%'`, `server='a:7070,b:7070'`. `system_prompt` may be a file's name.

    Raises:
        InvalidArgument: an unknown argument, or one that cannot be read.
    """
    known = {name: _unquoted(value) for name, value in given.items() if name not in _OF_LMMS_EVAL}
    for name in known:
        if name not in (*_CONNECTION, *_BUDGETS, *_OWN):
            raise InvalidArgument(f"model_args.{name}", "no such argument", limit=", ".join((*_CONNECTION, *_BUDGETS, *_OWN)))
    concurrent = _number(known, "concurrent", int, DEFAULT_CONCURRENT)
    if concurrent < 1:
        raise InvalidArgument("model_args.concurrent", f"{concurrent}", limit="at least 1")
    return Arguments(_connection(known), _budgets(known), concurrent, _system_prompt(str(known.get("system_prompt", ""))))


def _connection(given: dict[str, Given]) -> Connection:
    return Connection(
        server=str(given.get("server", DEFAULT_SERVER)),
        tls_ca=_path(given, "tls_ca"),
        tls_cert=_path(given, "tls_cert"),
        tls_key=_path(given, "tls_key"),
        insecure=_truth(given, "insecure") or False,
        token_file=_path(given, "token_file"),
        timeout_s=_number(given, "timeout", float, DEFAULT_TIMEOUT_S),
    )


def _budgets(given: dict[str, Given]) -> QuestionOptions:
    types = get_type_hints(QuestionOptions)
    named: dict[str, Any] = {}
    for each in fields(QuestionOptions):
        if each.name in _BUDGETS and each.name in given:
            named[each.name] = _as_type(given, each.name, types[each.name])
    options = QuestionOptions(**named)
    try:
        options.ask_options()
        options.frame_sampling()
    except InvalidArgument as error:
        raise error.below("model_args") from error
    return options


def _as_type(given: dict[str, Given], name: str, hint: Any) -> Given | None:
    kinds = {int, float, bool} & {hint, *getattr(hint, "__args__", ())}
    if bool in kinds:
        return _truth(given, name)
    return _number(given, name, kinds.pop(), None) if kinds else str(given[name])


def _number(given: dict[str, Given], name: str, kind: type[int] | type[float], default: T) -> Any | T:
    if name not in given:
        return default
    try:
        return kind(str(given[name]))
    except ValueError:
        whole = "a whole number" if kind is int else "a number"
        raise InvalidArgument(f"model_args.{name}", f"{given[name]!r} is not {whole}") from None


def _truth(given: dict[str, Given], name: str) -> bool | None:
    value = given.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise InvalidArgument(f"model_args.{name}", f"{value!r}", limit="true, false")


def _path(given: dict[str, Given], name: str) -> Path | None:
    return Path(str(given[name])) if name in given else None


def _unquoted(value: Given) -> Given:
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def _system_prompt(text: str) -> str:
    """The text, or that of the file which it names: lmms-eval's own rule."""
    try:
        return Path(text).read_text(encoding="utf-8").strip() if text and Path(text).is_file() else text
    except OSError as error:
        raise InvalidArgument("model_args.system_prompt", f"{text}: {error.strerror}") from error
