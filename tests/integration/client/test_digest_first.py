"""An image travels once; afterwards its 32-byte name does."""

import pytest

from tests.support.client_decoder import ScriptedDeployment
from vscan.errors import MissingImages, Unavailable
from vscan_client import Client, Image, ReductionMethod, ReductionSpec, Retry, Video

CAT, DOG = b"c" * 50_000, b"d" * 50_000


def test_the_second_question_uploads_a_digest(deployment: ScriptedDeployment, address: str) -> None:
    with Client(server=address) as client:
        first = client.ask(CAT, "what is it?")
        second = client.ask(CAT, "what colour is it?")
    assert deployment.sizes[0] > 50_000
    assert deployment.sizes[1] < 200
    assert [first.client.sent_bytes, second.client.sent_bytes] == deployment.sizes
    assert second.text == "1 image(s): what colour is it?"


def test_bytes_go_again_when_the_server_has_lost_the_image(deployment: ScriptedDeployment, address: str) -> None:
    with Client(server=address) as client:
        client.ask([CAT, DOG], "what?")
        deployment.known.remove(Image.from_bytes(CAT).sha256)
        answer = client.ask([CAT, DOG], "and now?")
    assert answer.text == "2 image(s): and now?"
    assert answer.client.attempts == 2
    # The try by digests, then the lost image whole and the other one by its digest still.
    assert len(deployment.requests) == 3
    assert deployment.sizes[1] < 200
    assert 50_000 < deployment.sizes[2] < 51_000


def test_bytes_go_exactly_once_to_a_server_that_keeps_nothing(deployment: ScriptedDeployment, address: str) -> None:
    image = Image.from_bytes(CAT)
    with Client(server=address, retry=Retry(attempts=9)) as client:
        client.ask(CAT, "what?")
        deployment.fail_with = [MissingImages([image.sha256]), MissingImages([image.sha256])]
        with pytest.raises(MissingImages) as caught:
            client.ask(CAT, "and now?")
    assert caught.value.sha256 == (image.sha256,)
    assert [size > 50_000 for size in deployment.sizes] == [True, False, True]


def test_a_digest_without_bytes_is_an_error_where_the_server_lacks_it(deployment: ScriptedDeployment, address: str) -> None:
    with Client(server=address) as client:
        with pytest.raises(MissingImages):
            client.ask(Image.from_digest(Image.from_bytes(CAT).digest), "what?")
        client.ask(CAT, "what?")
        assert client.ask(Image.from_digest(Image.from_bytes(CAT).digest), "again?").text == "1 image(s): again?"


def test_a_question_that_failed_leaves_the_image_unknown(deployment: ScriptedDeployment, address: str) -> None:
    deployment.fail_with = [Unavailable("away")]
    with Client(server=address, retry=Retry(attempts=1)) as client:
        with pytest.raises(Unavailable):
            client.ask(CAT, "what?")
        client.ask(CAT, "what?")
    assert all(size > 50_000 for size in deployment.sizes)


def test_another_reduction_needs_the_bytes_again(deployment: ScriptedDeployment, address: str) -> None:
    with Client(server=address) as client:
        client.ask(CAT, "what?")
        client.ask(CAT, "what?", reduction=ReductionSpec(method=ReductionMethod.NONE))
        client.ask(CAT, "what?", reduction=ReductionSpec(method=ReductionMethod.NONE))
    assert [size > 50_000 for size in deployment.sizes] == [True, True, False]


@pytest.mark.parametrize("video", [Video.from_bytes(CAT, frames=2), Video.from_frames([CAT, DOG], frames_per_second=2)])
def test_a_video_travels_once_too(deployment: ScriptedDeployment, address: str, video: Video) -> None:
    with Client(server=address) as client:
        client.ask(video, "what?")
        assert client.ask(video, "and then?").text == "0 image(s), 1 video(s): and then?"
        deployment.known.clear()
        assert client.ask(video, "and now?").client.attempts == 2
        client.ask(Video(video.sha256, video.data, video.frames), "all of it?")  # other frames are looked at
    assert [size > 50_000 for size in deployment.sizes] == [True, False, False, True, True]


def test_the_encoder_gets_digests_too(deployment: ScriptedDeployment, address: str) -> None:
    with Client(server=address, encoder=address) as client:
        client.encode(CAT)
        deployment.known.clear()
        assert client.encode(CAT).image.sha256 == Image.from_bytes(CAT).sha256
