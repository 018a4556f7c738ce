"""Runs a case through an encoder and a decoder of its own, over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import torch

from tests.parity.case import Case, Deployment
from tests.parity.compare import TOP, Served
from vscan.specs import PruneSpec, Rater, ReductionMethod, ReductionSpec, SamplingSpec
from vscan.v1 import encoder_pb2, encoder_pb2_grpc, visual_tokens_pb2
from vscan.visual_tokens import VisualTokens
from vscan.wire import reduction_to_proto
from vscan_client import Answer, Client
from vscan_client.cli.local_stack import ANY_PORT, Addresses, LocalStack

_DTYPE = "float32"  # what the expectations were computed in


@contextmanager
def deployed(deployment: Deployment) -> Iterator[Addresses]:
    """The two services and Redis, as child processes, while the context lasts."""
    encoder = {
        "shallow_layer": str(deployment.shallow_layer),
        "window": str(deployment.window),
        "skip_padding": "false",  # the released code does not
        "dtype": _DTYPE,
    }
    decoder = {"prune_layers": ",".join(map(str, deployment.prune_layers)), "raw_prompts": "true", "dtype": _DTYPE}
    with LocalStack(
        model=deployment.checkpoint,
        decoder_bind=ANY_PORT,
        encoder_bind=ANY_PORT,
        settings={"encoder": encoder, "decoder": decoder},
    ) as stack:
        yield stack.addresses


def ask(case: Case, addresses: Addresses) -> Served:
    """The case's question, and its image's tokens as the encoder hands them out."""
    reduction = ReductionSpec(method=ReductionMethod.VSCAN, budget=case.budget)
    with Client(server=addresses.decoder) as client:
        answer = client.raw(
            case.prompt,
            case.picture,
            reduction=reduction,
            prune=PruneSpec(rater=Rater.LAST_TOKEN if case.prune_budgets else Rater.NONE, budgets=case.prune_budgets),
            sampling=SamplingSpec(max_new_tokens=case.max_new_tokens, ignore_eos=True, logprobs=TOP),
        )
    top_ids, top_logprobs = _top(answer)
    return Served(
        tokens=_visual_tokens(addresses.encoder, case, reduction),
        unreduced=_visual_tokens(addresses.encoder, case, ReductionSpec(method=ReductionMethod.NONE)).tokens,
        output_token_ids=tuple(token.token_id for token in answer.tokens),
        top_ids=top_ids,
        top_logprobs=top_logprobs,
    )


def _top(answer: Answer) -> tuple[torch.Tensor, torch.Tensor]:
    ids = [[token_id for token_id, _ in token.top] for token in answer.tokens]
    logprobs = [[logprob for _, logprob in token.top] for token in answer.tokens]
    return torch.tensor(ids, dtype=torch.int64), torch.tensor(logprobs, dtype=torch.float32)


def _visual_tokens(encoder: str, case: Case, reduction: ReductionSpec) -> VisualTokens:
    request = encoder_pb2.EncodeRequest(
        image=visual_tokens_pb2.Image(data=case.picture.read_bytes()), reduction=reduction_to_proto(reduction)
    )
    with grpc.insecure_channel(encoder) as channel:
        stub = encoder_pb2_grpc.VisionEncoderStub(channel)  # type: ignore[no-untyped-call]
        reply = stub.Encode(request, timeout=120)
    return VisualTokens.from_proto(reply.visual_tokens)
