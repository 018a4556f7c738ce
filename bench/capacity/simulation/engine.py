"""A decoder's engine: who waits, who runs, and steps, each as long as its sequences and prompts were measured to take.

A step takes `step_ms` of the sequences that decode, or `shared_ms` where none does, and for each prompt what it costs beside
others: its step alone less `shared_ms`. A long prompt runs in pieces, each with its share of that. Steps that only decode are
simulated many at once; whoever comes meanwhile begins with the next step, as in the engine.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil

from simpy import Environment, Event

from bench.capacity.curve import NotMeasured, measured
from bench.capacity.profile import Profile
from bench.capacity.simulation.core import Core, Process, Work
from bench.capacity.simulation.errors import Busy
from bench.capacity.simulation.prefixes import Remembered
from decoder_service.step_rows import share_rows

_FIRST_ESTIMATE_MS, _NEWEST_WEIGHT, _LEAST_MS, _LONGEST_MS = 1000.0, 0.2, 100, 30_000  # as the scheduler's retry delays
_ALMOST = 1e-6


@dataclass(slots=True, eq=False)
class Job:
    """A request at the engine. `first` and `last` happen with its tokens, or never if the decoder dies."""

    images: tuple[int, ...]
    question_rows: int
    tokens: int
    first: Event
    last: Event
    pages: int
    hot: bool = False
    began_s: float = 0.0
    rows: int = 0  # that it has to run of its prompt
    left: int = 0  # of those
    prompt_ms: float = 0.0  # what all of them cost beside others


class Engine:
    """One decoder's. All jobs end, in some order, as long as the decoder lives."""

    def __init__(self, env: Environment, profile: Profile, device: Core) -> None:
        costs, layout = profile.decoder, profile.decoder.kv.layout
        if costs.step_ms is None or costs.cold_ms is None or costs.hot_ms is None:
            raise NotMeasured("a decoder's steps (decoder.step_ms, cold_ms, hot_ms)")
        self.prompts = self.hot_prompts = 0
        self._env, self._profile, self._device = env, profile, device
        self._step_ms, self._cold_ms, self._hot_ms = costs.step_ms, costs.cold_ms, costs.hot_ms
        self._shared_ms = measured(costs.shared_ms, "what prompts share with a step (decoder.shared_ms)")
        weight = "the share of steps in a core (decoder.engine_weight)"
        self._weight = measured(costs.engine_weight, weight) if costs.on_core else 1.0
        self._layout, self._max_running, self._max_queue = layout, costs.max_running, costs.max_queue
        self._max_step_rows = costs.max_step_rows
        cache = costs.kv.cache_bytes
        self._pages = None if cache is None else cache // layout.page_bytes
        self._held = 0
        self._idle = Remembered(self._pages)
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._work: tuple[Work, float, float] | None = None  # decode steps under way: all of them, and one
        self._comes = env.event()
        self._usual_ms = _FIRST_ESTIMATE_MS
        env.process(self._run())

    @property
    def waiting(self) -> int:
        """Requests that do not run yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that do."""
        return len(self._running)

    def job(self, images: tuple[int, ...], question_rows: int, tokens: int) -> Job:
        """A request. Raises ValueError if it does not fit the cache alone."""
        pages = self._layout.pages(self._profile.segment_rows(question_rows, len(images), tokens))
        if self._pages is not None and pages > self._pages:
            raise ValueError(f"a request takes {pages} pages of KV cache, and there are {self._pages}")
        return Job(images, question_rows, tokens, self._env.event(), self._env.event(), pages)

    def submit(self, job: Job) -> None:
        """Raises Busy where too many wait."""
        if len(self._waiting) >= self._max_queue:
            delay_ms = self._usual_ms * self._max_queue / self._max_running
            raise Busy(int(min(max(delay_ms, _LEAST_MS), _LONGEST_MS)))
        self._waiting.append(job)
        self._interrupt()

    def remember(self, images: tuple[int, ...]) -> None:
        """The rows of their prefix are there, in idle pages."""
        text = self._profile.decoder.text_rows + len(images) * self._profile.visual_rows
        blocks = text // self._layout.block_rows
        self._idle.add(images, self._layout.block_pages([blocks] + [0] * (len(self._layout.segments) - 1)))

    def _interrupt(self) -> None:
        """Decode steps under way end with the one that runs now, if somebody may begin then."""
        if not self._comes.triggered:
            self._comes.succeed()
        if self._work is None or len(self._running) >= self._max_running:
            return
        work, all_ms, step_ms = self._work
        done_ms = all_ms - self._device.left_ms(work)
        ends_ms = min(all_ms, max(1, ceil(done_ms / step_ms - _ALMOST)) * step_ms)
        self._device.trim(work, ends_ms - done_ms)
        self._work = work, ends_ms, step_ms

    def _run(self) -> Process:
        while True:
            self._begin()
            if not self._running:
                self._comes = self._env.event()
                yield self._comes
                continue
            prompts = [job for job in self._running if job.left]
            if prompts:
                yield from self._mixed_step(prompts)
            else:
                yield from self._decode_steps()

    def _mixed_step(self, prompts: list[Job]) -> Process:
        decoding = [job for job in self._running if not job.left]
        shares = share_rows(self._max_step_rows - len(decoding), [job.left for job in prompts])
        duration_ms = self._step_ms.at(len(decoding)) if decoding else self._shared_ms
        duration_ms += sum(job.prompt_ms * rows / job.rows for job, rows in zip(prompts, shares, strict=True))
        yield self._device.work(duration_ms, self._weight)
        for job, rows in zip(prompts, shares, strict=True):
            job.left -= rows
            if not job.left:
                job.first.succeed()
                self._got(job, 1)
        for job in decoding:
            self._got(job, 1)

    def _decode_steps(self) -> Process:
        step_ms = self._step_ms.at(len(self._running))
        most = min(job.tokens for job in self._running)
        work = self._device.begin(most * step_ms, self._weight)
        self._work = work, most * step_ms, step_ms
        yield work.done
        steps, self._work = round(self._work[1] / step_ms), None
        for job in list(self._running):
            self._got(job, steps)

    def _got(self, job: Job, tokens: int) -> None:
        job.tokens -= tokens
        if job.tokens <= 0:
            self._running.remove(job)
            self._held -= job.pages
            self.remember(job.images)
            self._usual_ms += _NEWEST_WEIGHT * ((self._env.now - job.began_s) * 1e3 - self._usual_ms)
            job.last.succeed()

    def _begin(self) -> None:
        """All that may, in the order in which they came; who would make rows that another one is making waits for them."""
        making = {job.images for job in self._running if job.left and not job.hot}
        passed: list[Job] = []
        while self._waiting and len(self._running) < self._max_running:
            job = self._waiting.popleft()
            if job.images and job.images in making:
                passed.append(job)
                continue
            if not self._has_room(job):
                self._waiting.appendleft(job)
                break
            self._enter(job)
            if not job.hot:
                making.add(job.images)
        self._waiting.extendleft(reversed(passed))

    def _has_room(self, job: Job) -> bool:
        return self._pages is None or self._held + job.pages <= self._pages

    def _enter(self, job: Job) -> None:
        rows = self._profile.prompt_rows(job.question_rows, len(job.images))
        running = any(other.images == job.images and not other.left for other in self._running)
        job.hot = bool(job.images) and (self._idle.take(job.images) or running)
        self._held += job.pages
        if self._pages is not None:
            self._idle.shrink(self._pages - self._held)
        alone_ms = (self._hot_ms if job.hot else self._cold_ms).at(rows)
        job.prompt_ms = max(0.0, alone_ms - self._shared_ms)
        job.rows = job.left = min(rows, job.question_rows + self._layout.block_rows) if job.hot else rows
        job.began_s = self._env.now
        self.prompts += 1
        self.hot_prompts += job.hot
        self._running.append(job)
