"""Which device and which element type a name means."""

import pytest
import torch

from vscan.device import choose_device, choose_dtype
from vscan.errors import StartupError


def test_auto_is_what_there_is() -> None:
    device = choose_device("auto")
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("cuda")) is torch.bfloat16
    assert choose_dtype("float16", torch.device("cpu")) is torch.float16


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "meta:x"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(StartupError, match=r"^device: .* cannot be used here$"):
        choose_device(name)
