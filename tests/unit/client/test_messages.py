"""What the contract says, in the SDK's values."""

from vscan.v1 import decoder_pb2
from vscan.v1 import visual_tokens_pb2 as pb
from vscan_client import Finished, PickedBy, Place, TextDelta
from vscan_client._messages import event_from_proto, image_report


def test_every_scan_and_every_place_of_the_contract_has_its_name() -> None:
    names = pb.PickedBy.keys()
    kept = image_report(pb.ImageReport(kept=pb.VisualTokens(picked_by=names))).kept
    assert kept is not None
    assert kept.picked_by == tuple(PickedBy(_bare(name, "PICKED_BY_")) for name in names)
    for name in pb.Place.keys():  # noqa: SIM118  an enum, not a dict
        assert image_report(pb.ImageReport(place=name)).place is Place(_bare(name, "PLACE_"))


def _bare(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("unspecified", "unknown")


def test_what_an_earlier_release_does_not_tell_is_none() -> None:
    token = decoder_pb2.GeneratedToken(token_id=7, logprob=-1.0, top=[decoder_pb2.TokenLogprob(token_id=7, logprob=-1.0)])
    told = event_from_proto(decoder_pb2.GenerateEvent(delta=decoder_pb2.TextDelta(tokens=[token])))
    assert isinstance(told, TextDelta)
    assert (told.tokens[0].text_bytes, told.tokens[0].top_bytes) == (None, (None,))
    token.text = token.top[0].text = b""
    told = event_from_proto(decoder_pb2.GenerateEvent(delta=decoder_pb2.TextDelta(tokens=[token])))
    assert isinstance(told, TextDelta)
    assert (told.tokens[0].text_bytes, told.tokens[0].top_bytes) == (b"", (b"",))
    older = event_from_proto(decoder_pb2.GenerateEvent(finished=decoder_pb2.Finished()))
    newer = event_from_proto(
        decoder_pb2.GenerateEvent(finished=decoder_pb2.Finished(usage=decoder_pb2.Usage(reused_prompt_tokens=0)))
    )
    assert isinstance(older, Finished)
    assert isinstance(newer, Finished)
    assert (older.usage.reused_prompt_tokens, newer.usage.reused_prompt_tokens) == (None, 0)
