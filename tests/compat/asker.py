"""Asks a deployment with whatever SDK is on the path, and prints what came back as JSON, a line for each question.

python asker.py DECODER ENCODER FOLDER      pictures and questions.json in FOLDER

Says only what the SDK of every release can: it is run with those of earlier ones.
"""

import json
import sys
from pathlib import Path
from typing import Any

from vscan_client import Client, KeepRatio, PruneSpec, ReductionSpec, Retry, SamplingSpec, TokensPerTile


def main(decoder: str, encoder: str, folder: str) -> None:
    """Each question twice: with the picture, and with its name; every other one under budgets of its own."""
    with Client(server=decoder, encoder=encoder, retry=Retry(attempts=20)) as client:
        for number, (name, question) in enumerate(json.loads(Path(folder, "questions.json").read_text())):
            options: dict[str, Any] = {"sampling": SamplingSpec(max_new_tokens=12, logprobs=1)}
            if number % 2:
                options["reduction"] = ReductionSpec(budget=TokensPerTile(36))
                options["prune"] = PruneSpec(budgets=(KeepRatio(0.25),) * layers_of(client))
            for _ in range(2):
                print(json.dumps(told(client.ask(Path(folder, name), question, **options))))
            encoded = client.encode(Path(folder, name), reduction=options.get("reduction"), tokens=True)
            (place,) = client.lookup(Path(folder, name), reduction=options.get("reduction"))
            print(
                json.dumps({"tokens": [encoded.image.tokens_before, encoded.image.tokens_after], "cached": place is not None})
            )


def layers_of(client: Client) -> int:
    """How many pruning layers the decoder has."""
    return len(client.describe().decoder.prune_layers)


def told(answer: Any) -> dict[str, Any]:
    """What must be the same whoever answers, and log-probabilities, which must be close."""
    return {
        "text": answer.text,
        "reason": str(answer.finish_reason),
        "tokens": [token.token_id for token in answer.tokens],
        "logprobs": [token.logprob for token in answer.tokens],
        "images": [[image.tokens_before, image.tokens_after] for image in answer.images],
        "prompt": answer.usage.prompt_tokens,
        "pruned": [[one.layer, one.tokens_after] for one in answer.pruning],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
