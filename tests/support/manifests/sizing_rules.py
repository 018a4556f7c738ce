"""Rules on time, memory and threads: what a pod is given is enough for what its settings allow."""

from __future__ import annotations

import json

from tests.support.manifests.objects import (
    ALL_SERVICES,
    Object,
    model_services,
    of_kind,
    own_settings,
    pod_of,
    quantity,
    services,
    title,
)

_END_SECONDS = 15  # what a service takes for its end once calls have ended (docs/operations.md)
# Of an image of which a worker has the file's own pixels and those in RGB: 4 + 3 bytes.
_DECODED_PIXEL_BYTES = 7
_PROCESS_BYTES = 2**30  # interpreter, torch, the embedded model
_GATEWAY_BYTES = 2**28  # interpreter, HTTP, the SDK
_BODY_COPIES = 4  # a body, its text, the texts in it, and what they say in base64 on its way to the decoder
_TRIED_CONSTRAINTS_BYTES = 2 * 2**29  # two processes of 512 MiB (docs/limits.md)
_MOST_ANNOTATION_BYTES = 250_000
_CPU_KV_SHARE = 0.25  # of the pod's memory, where nothing is set and there is no GPU


def time_to_drain(objects: list[Object]) -> list[str]:
    """The grace period holds the delay, the drain and the end (docs/operations.md)."""
    faults = []
    for name, pod, container in services(objects):
        settings = own_settings(name, container)
        drain = float(settings.get("drain_delay_seconds") or 0) + float(settings.get("drain_seconds") or "inf")
        if drain + _END_SECONDS >= pod.get("terminationGracePeriodSeconds", 30):
            faults.append(f"{name}: {pod.get('terminationGracePeriodSeconds')} s are too few for a drain of {drain:.0f} s")
        if not float(settings.get("drain_delay_seconds") or 0):
            faults.append(f"{name}: takes no calls while the others learn that it goes")
    return faults


def time_to_start(objects: list[Object]) -> list[str]:
    """No rollout is given up while a pod may still start, once its predecessor has ended."""
    faults = []
    for workload in of_kind(objects, "Deployment"):
        deadline = workload["spec"].get("progressDeadlineSeconds", 600)
        pod = pod_of(workload)
        starts = [one["startupProbe"] for one in pod["containers"] if "startupProbe" in one]
        start = max((one.get("periodSeconds", 10) * one.get("failureThreshold", 3) for one in starts), default=0)
        if deadline <= start + pod.get("terminationGracePeriodSeconds", 30):
            faults.append(f"{title(workload)}: has failed after {deadline} s, and may take {start} s to start")
    return faults


def threads_by_cpus(objects: list[Object]) -> list[str]:
    """What runs threads is told how many, no more than it has CPUs: by its limit, or where it has none by its request."""
    faults = []
    for name, _, container in model_services(objects):
        resources, settings = container["resources"], own_settings(name, container)
        cpus = quantity(resources.get("limits", {}).get("cpu") or resources["requests"]["cpu"])
        fields = ("torch_threads", "image_workers") if name == "encoder" else ("torch_threads",)
        faults += [
            f"{name}: {field} is {settings.get(field)}, of {cpus:g} CPUs"
            for field in fields
            if not 1 <= int(settings.get(field) or 0) <= max(1, cpus)
        ]
    return faults


def memory_for_bounds(objects: list[Object]) -> list[str]:
    """All that callers can make a service hold at once fits its memory: each bound as it is set, or as it is by default."""
    faults = []
    for name, _, container in services(objects):
        limit = quantity(container["resources"]["limits"]["memory"])
        held = _held_bytes(name, own_settings(name, container), limit)
        if held > limit:
            faults.append(f"{name}: may hold {held / 2**30:.1f} GiB of {limit / 2**30:.1f}")
    return faults


def _held_bytes(name: str, settings: dict[str, str | None], limit: float) -> float:
    def value(field: str) -> float:
        return float(settings.get(field) or ALL_SERVICES[name].model_fields[field].default)

    if name == "gateway":
        return _GATEWAY_BYTES + _BODY_COPIES * value("max_bodies_bytes")
    held = _PROCESS_BYTES + value("max_request_bytes") + value("cache_memory_bytes")
    if name == "encoder":
        pictures = int(settings.get("image_workers") or 1) * value("max_image_pixels") * _DECODED_PIXEL_BYTES
        return held + 2 * value("max_queue_bytes") + pictures  # images and videos wait apart
    return held + _TRIED_CONSTRAINTS_BYTES + (0 if settings.get("device") == "cuda" else _CPU_KV_SHARE * limit)


def fits_an_apply(objects: list[Object]) -> list[str]:
    """`kubectl apply` keeps a copy of each object in an annotation of it, and annotations end at 256 KiB."""
    return [f"{title(one)}: too large to apply" for one in objects if len(json.dumps(one)) > _MOST_ANNOTATION_BYTES]


RULES = (time_to_drain, time_to_start, threads_by_cpus, memory_for_bounds, fits_an_apply)
