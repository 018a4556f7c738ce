"""What the contract says, in the SDK's values."""

from vscan.v1 import visual_tokens_pb2 as pb
from vscan_client import PickedBy, Place
from vscan_client._messages import image_report


def test_every_scan_and_every_place_of_the_contract_has_its_name() -> None:
    names = pb.PickedBy.keys()
    kept = image_report(pb.ImageReport(kept=pb.VisualTokens(picked_by=names))).kept
    assert kept is not None
    assert kept.picked_by == tuple(PickedBy(_bare(name, "PICKED_BY_")) for name in names)
    for name in pb.Place.keys():  # noqa: SIM118  an enum, not a dict
        assert image_report(pb.ImageReport(place=name)).place is Place(_bare(name, "PLACE_"))


def _bare(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("unspecified", "unknown")
