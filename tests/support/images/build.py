"""Executes a Dockerfile: each instruction that changes files makes a layer, and what was done once is not done again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.images.context import DockerIgnore
from tests.support.images.dockerfile import Instruction, Stage, parse
from tests.support.images.layers import Chain, Layers, Machine, chroot, mount_view

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Image:
    """What a build ends with: the files, and what its last stage says of them."""

    chain: Chain
    stage: Stage

    @property
    def environment(self) -> dict[str, str]:
        """Of a container."""
        return {"PATH": _PATH, **self.stage.environment}


class Builder:
    """Builds images whose first stages begin with one base.

    Args:
        layers: where.
        base: a whole system, for every FROM that names no stage.
        context: the folder that is sent to the engine, with its `.dockerignore`.
        machine: what RUN may use of this machine.
    """

    def __init__(self, layers: Layers, base: Path, context: Path, machine: Machine) -> None:
        self._layers, self._context, self._machine = layers, context, machine
        self._base = base
        self._files = list(DockerIgnore((context / ".dockerignore").read_text()).files(context))
        self._made: dict[str, Chain] = {}
        self.steps_reused = 0

    def build(self, dockerfile: Path, arguments: Mapping[str, str] | None = None) -> Image:
        """All stages in order, as the classic builder does. Raises ValueError for what an engine would do otherwise."""
        done: dict[str, tuple[str, Chain]] = {}
        folders: dict[str, str] = {}
        stages = parse(dockerfile.read_text(), arguments)
        for stage in stages:
            check_understood(stage)
            key, chain = done.get(stage.base, (stage.base, (self._base,)))
            folder = folders.get(stage.base, "/")
            for instruction in stage.instructions:
                if instruction.name == "WORKDIR":
                    folder = str(Path(folder, *instruction.words))
                key, chain = self._execute(instruction, key, chain, folder, done)
            done[stage.name] = key, chain
            folders[stage.name] = folder
        return Image(chain, stages[-1])

    def _execute(
        self, one: Instruction, key: str, chain: Chain, folder: str, done: Mapping[str, tuple[str, Chain]]
    ) -> tuple[str, Chain]:
        if one.name not in ("RUN", "COPY", "WORKDIR"):
            return key, chain
        inputs = [key, one.name, one.text, folder]
        source = next((word.removeprefix("--from=") for word in one.words if word.startswith("--from=")), None)
        if one.name == "RUN":
            inputs += map(str, one.environment)
        elif source:
            inputs.append(done[source][0])
        elif one.name == "COPY":
            inputs += [
                f"{path} {hashlib.sha256((self._context / path).read_bytes()).hexdigest()}" for path in self._copied(one)
            ]
        name = hashlib.sha256("\0".join(inputs).encode()).hexdigest()
        if name not in self._made:
            self._made[name] = self._layer(one, chain, folder, done[source][1] if source else None)
        else:
            self.steps_reused += 1
        return name, self._made[name]

    def _layer(self, one: Instruction, chain: Chain, folder: str, source: Chain | None) -> Chain:
        if one.name == "RUN":
            # With a HOME, but nothing else of whoever builds.
            environment = {"PATH": _PATH, "HOME": "/root", **self._machine.variables, **dict(one.environment)}
            return self._layers.change(chain, chroot(["sh", "-c", one.text], environment, folder), self._machine)
        if one.name == "WORKDIR":
            return self._layers.change(chain, f"mkdir -p $root{folder}")
        *sources, target = [word for word in one.words if not word.startswith("--")]
        if source is None:
            return (*chain, self._from_context(one, Path(folder, target)))
        (path,) = sources
        mounts = f"mkdir {self._layers.folder}/source\n{mount_view(source, f'{self._layers.folder}/source')}"
        copy = f"mkdir -p $root{target}\ncp -a {self._layers.folder}/source{path}/. $root{target}/\n"
        try:
            return self._layers.change(chain, mounts + copy)
        finally:
            (self._layers.folder / "source").rmdir()

    def _copied(self, one: Instruction) -> list[str]:
        *sources, _ = one.words
        found = [path for path in self._files if any(path == source or path.startswith(f"{source}/") for source in sources)]
        missing = [source for source in sources if not any(f"{path}/".startswith(f"{source}/") for path in found)]
        if missing:
            raise ValueError(f"COPY: {', '.join(missing)}: not in what is sent to the engine")
        return found

    def _from_context(self, one: Instruction, target: Path) -> Path:
        """A layer with the files of the context; of a folder its contents are copied, of a file itself."""
        layer = self._layers.new("l")
        *sources, _ = one.words
        for path in self._copied(one):
            (source,) = [source for source in sources if path == source or path.startswith(f"{source}/")]
            inner = Path(path).name if path == source else Path(path).relative_to(source)
            here = layer / target.relative_to("/") / inner
            here.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self._context / path, here)
        return layer


def check_understood(stage: Stage) -> None:
    """Raises ValueError where this builder and an engine would part ways."""
    names = [one.name for one in stage.instructions]
    for at, one in enumerate(stage.instructions):
        if one.name not in ("RUN", "COPY"):
            continue
        if "USER" in names[:at]:
            raise ValueError(f"{one.name} behind USER: here it would be done as root")
        if one.name == "RUN" and one.text.startswith(("--", "[", "<<")):
            raise ValueError(f"RUN {one.text}: not understood")
        if one.name == "COPY":
            _check_copy(one)


def _check_copy(one: Instruction) -> None:
    flags = [word for word in one.words if word.startswith("--")]
    if any(not flag.startswith("--from=") for flag in flags) or one.text.startswith(("[", "<<")):
        raise ValueError(f"COPY {one.text}: not understood")
    *sources, target = [word for word in one.words if word not in flags]
    # A file would become the target itself, of a folder the contents are copied: names do not tell which it is.
    if not flags and not target.endswith("/") and sources != [target]:
        raise ValueError(f"COPY {one.text}: the target needs a slash at its end, or the source's name")
