"""A model whose numbers overflow has no findings: NaN would sort, average and be drawn as if it said something."""

from __future__ import annotations

import numpy as np
import torch

from vscan.errors import InvalidArgument


def check_finite(values: torch.Tensor | np.ndarray, what: str, dtype: torch.dtype) -> None:
    """Raises InvalidArgument that says in which element type `what` is infinite or no number."""
    if not bool(torch.as_tensor(values).isfinite().all()):
        name = str(dtype).removeprefix("torch.")
        raise InvalidArgument(
            "--dtype", f"{what} is infinite or not a number in {name}", limit="an element type of wider range"
        )
