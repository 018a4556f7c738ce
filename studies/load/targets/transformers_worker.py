"""`python -m studies.load.targets.transformers_worker`: a checkpoint behind transformers' own `generate`, spoken to over pipes.

A line of JSON each way:

    in   {"id": 7, "images": [base64 of a file, …], "question": "…", "answer_tokens": 16 or null}
    out  {"ready": {…}}   once; then of each request
         {"id": 7, "token": true} …  {"id": 7, "prompt_tokens": …, "completion_tokens": …}   or   {"id": 7, "error": "…"}

Requests are answered in the order they come, up to `--batch` of those that wait together. It ends when its stdin does.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studies.load.album import picture

_TRIAL_PIXELS, _TRIALS = 336, 2


def main() -> None:
    """Loads the model, says so, and answers until nobody asks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", help="auto: as the services do")
    parser.add_argument("--most-tokens", type=int, required=True, help="of an answer whose length is the model's own")
    parser.add_argument("--threads", type=_counts, required=True, help="counts to try; the fastest is taken")
    parser.add_argument("--cores", default="")
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, {int(core) for core in arguments.cores.split(",")})
    # What libraries print must not come between the lines.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(waiting,), daemon=True).start()
    model = Generating(arguments.model, arguments.device, arguments.dtype, arguments.most_tokens)
    threads, tried_ms = model.take_fastest(arguments.threads)
    told = {"device": str(model.device), "dtype": str(model.dtype), "threads": threads, "tried_ms": tried_ms}
    _say(out, {"ready": told})
    batches = Batches(waiting, arguments.batch)
    while (requests := batches.next()) is not None:
        _answer(model, requests, out)


class Generating:
    """A model with its processor, as transformers' documentation uses them."""

    def __init__(self, folder: Path, device_name: str, dtype_name: str = "auto", most_tokens: int = 256) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from vscan.device import choose_device, choose_dtype

        self._torch, self._most_tokens = torch, most_tokens
        device = choose_device(device_name)
        dtype = choose_dtype(dtype_name, device)
        self._model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, local_files_only=True)
        self._model = self._model.to(device).eval()
        self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self._processor.tokenizer.padding_side = "left"
        self.device, self.dtype = self._model.device, self._model.dtype

    def take_fastest(self, counts: Sequence[int]) -> tuple[int, dict[int, float]]:
        """Sets the number of threads with which a request is answered soonest here; and the milliseconds with each.

        On cores that others use too, threads that wait for one another may take longer than one alone.
        """
        request = {
            "images": [base64.b64encode(picture(0, _TRIAL_PIXELS)).decode()],
            "question": "is it red",
            "answer_tokens": 4,
        }
        tried_ms = {}
        for count in counts:
            self._torch.set_num_threads(count)
            self.answer([request], None)
            began = time.perf_counter()
            for _ in range(_TRIALS):
                self.answer([request], None)
            tried_ms[count] = (time.perf_counter() - began) * 1e3 / _TRIALS
        fastest = min(tried_ms, key=tried_ms.__getitem__)
        self._torch.set_num_threads(fastest)
        return fastest, tried_ms

    def answer(self, requests: Sequence[dict[str, Any]], streamer: Any) -> list[dict[str, Any]]:
        """Greedy answers; `streamer` is told of every token of all of them. Gives the counts of tokens."""
        asked = [request["answer_tokens"] for request in requests]
        # A batch runs until its longest answer is done; `Batches` joins no exact lengths with the model's own.
        lengths = {"max_new_tokens": self._most_tokens if asked[0] is None else max(asked)}
        if asked[0] is not None:
            lengths["min_new_tokens"] = max(asked)
        with self._torch.inference_mode():
            inputs = self._inputs(requests)
            made = self._model.generate(**inputs, **lengths, do_sample=False, streamer=streamer)
        prompts = inputs["attention_mask"].sum(dim=1).tolist()
        new = made[:, inputs["input_ids"].shape[1] :]
        counts = [self._until_end(row.tolist()) if own is None else own for row, own in zip(new, asked, strict=True)]
        return [{"prompt_tokens": prompt, "completion_tokens": count} for prompt, count in zip(prompts, counts, strict=True)]

    def ends(self, token: int) -> bool:
        """Whether the model ends an answer with it."""
        end = self._model.generation_config.eos_token_id
        return token in (end if isinstance(end, list) else [end])

    def _until_end(self, tokens: list[int]) -> int:
        return next((place + 1 for place, token in enumerate(tokens) if self.ends(token)), len(tokens))

    def _inputs(self, requests: Sequence[dict[str, Any]]) -> Any:
        from PIL import Image

        pictures = [
            [Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB") for each in request["images"]]
            for request in requests
        ]
        texts = [
            self._processor.apply_chat_template(
                [{"role": "user", "content": [*[{"type": "image"}] * len(own), {"type": "text", "text": request["question"]}]}],
                add_generation_prompt=True,
                tokenize=False,
            )
            for own, request in zip(pictures, requests, strict=True)
        ]
        flat = [picture for own in pictures for picture in own]
        begun = self._processor.tokenizer.bos_token
        # A template that writes the first token itself would else have it twice.
        adds = not (begun and all(text.startswith(begun) for text in texts))
        images = {"images": flat} if flat else {}
        made = self._processor(text=texts, **images, return_tensors="pt", padding=len(texts) > 1, add_special_tokens=adds)
        return made.to(self.device, self.dtype) if flat else made.to(self.device)


class _Tokens:
    """transformers' interface of a streamer: `put` gets the prompt, then a token of each answer at a time."""

    def __init__(self, model: Generating, requests: Sequence[dict[str, Any]], out: Any) -> None:
        self._model, self._out = model, out
        self._ids: list[int | None] = [request["id"] for request in requests]
        self._left: list[int | None] = [request["answer_tokens"] for request in requests]
        self._prompt_is_next = True

    def put(self, value: Any) -> None:
        """Told by `generate`."""
        if self._prompt_is_next:
            self._prompt_is_next = False
            return
        for place, token in enumerate(value.reshape(-1).tolist()):
            if self._ids[place] is not None:
                _say(self._out, {"id": self._ids[place], "token": True})
                if self._was_last(place, token):
                    self._ids[place] = None

    def _was_last(self, place: int, token: int) -> bool:
        """An exact length goes past the model's own end."""
        left = self._left[place]
        if left is None:
            return self._model.ends(token)
        self._left[place] = left - 1
        return left == 1

    def end(self) -> None:
        """Told by `generate`."""


def _answer(model: Generating, requests: Sequence[dict[str, Any]], out: Any) -> None:
    ids = [request["id"] for request in requests]
    try:
        counts = model.answer(requests, _Tokens(model, requests, out))
    except Exception as error:  # a request that cannot be answered is not the end of the others
        for id_ in ids:
            _say(out, {"id": id_, "error": f"{type(error).__name__}: {error}"})
        return
    for id_, counted in zip(ids, counts, strict=True):
        _say(out, {"id": id_, **counted})


class Batches:
    """Requests that wait, up to so many together, in the order they came. Exact lengths are not joined with the model's own."""

    def __init__(self, waiting: queue.SimpleQueue[dict[str, Any] | None], most: int) -> None:
        self._waiting, self._most = waiting, most
        self._first: list[dict[str, Any] | None] = []  # what was taken from those that wait, and did not fit

    def next(self) -> list[dict[str, Any]] | None:
        """Waits for one; `None` once nobody asks any more."""
        first = self._first.pop() if self._first else self._waiting.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < self._most and not self._waiting.empty():
            another = self._waiting.get()
            if another is None or (another["answer_tokens"] is None) != (first["answer_tokens"] is None):
                self._first = [another]
                break
            batch.append(another)
        return batch


def _read(waiting: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        waiting.put(json.loads(line))
    waiting.put(None)


def _counts(text: str) -> list[int]:
    return [int(count) for count in text.split(",")]


def _say(out: Any, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    main()
