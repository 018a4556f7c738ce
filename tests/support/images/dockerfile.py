"""A Dockerfile as stages of instructions, with the build's arguments and variables filled in."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dockerfile_parse import DockerfileParser
from dockerfile_parse.util import WordSplitter, extract_key_values


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line, its variables filled in but for those of RUN, which are the shell's."""

    name: str
    words: tuple[str, ...]
    text: str  # as it stands behind the name
    environment: tuple[tuple[str, str], ...]  # what RUN sees: ENV and ARG before it


@dataclass(slots=True)
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)  # of ENV alone: what a container gets

    def last(self, name: str) -> Instruction | None:
        """The last instruction of a name in this stage."""
        found = [one for one in self.instructions if one.name == name]
        return found[-1] if found else None


def parse(text: str, arguments: Mapping[str, str] | None = None) -> list[Stage]:
    """The stages, in order.

    Args:
        text: of a Dockerfile. Instructions over several lines are one; heredocs and ONBUILD are not understood.
        arguments: what `--build-arg` would say.

    Raises:
        ValueError: an instruction that is not known, or one before the first FROM that is not ARG.
    """
    return _Reader(dict(arguments or {})).read(text)


class _Reader:
    _KNOWN = frozenset(
        ["ARG", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "STOPSIGNAL", "USER", "WORKDIR"]
    )

    def __init__(self, given: dict[str, str]) -> None:
        self._given = given
        self._before: dict[str, str] = {}  # ARGs before the first FROM: of FROM lines alone
        self._arguments: dict[str, str] = {}
        self._stages: list[Stage] = []

    def read(self, text: str) -> list[Stage]:
        for name, value in _lines(text):
            if name not in self._KNOWN:
                raise ValueError(f"{name}: not understood")
            if name == "FROM":
                self._begin(value)
            elif not self._stages:
                if name != "ARG":
                    raise ValueError(f"{name} before FROM")
                self._before |= self._argument(value, {})
            else:
                self._add(self._stages[-1], name, value)
        return self._stages

    def _begin(self, value: str) -> None:
        base, *named = list(WordSplitter(value, args=self._before).split())
        self._stages.append(Stage(base, named[1] if named else str(len(self._stages))))
        self._arguments = {}
        parents = [stage for stage in self._stages if stage.name == base]
        if parents:
            self._stages[-1].environment |= parents[0].environment

    def _add(self, stage: Stage, name: str, value: str) -> None:
        variables = self._arguments | stage.environment
        if name == "ARG":
            self._arguments |= self._argument(value, variables)
        if name == "ENV":
            stage.environment |= dict(extract_key_values(env_replace=True, args={}, envs=variables, instruction_value=value))
        words = () if name == "RUN" else tuple(WordSplitter(value, args={}, envs=variables).split())
        seen = tuple(sorted((self._arguments | stage.environment).items()))
        stage.instructions.append(Instruction(name, words, value, seen))

    def _argument(self, value: str, variables: Mapping[str, str]) -> dict[str, str]:
        (word,) = WordSplitter(value, args={}, envs=dict(variables)).split()
        name, _, default = word.partition("=")
        return {name: self._given.get(name, default if default else self._before.get(name, default))}


def _lines(text: str) -> Iterator[tuple[str, str]]:
    parser = DockerfileParser(fileobj=io.BytesIO(text.encode()))
    yield from ((one["instruction"], one["value"]) for one in parser.structure if one["instruction"] != "COMMENT")
