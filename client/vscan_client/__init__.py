"""Ask questions about images and videos: the SDK of vscan-serve. Needs no torch.

    from vscan_client import Client

    with Client(server="127.0.0.1:7070") as client:
        answer = client.ask("photo.jpg", "What colour is the car?")
        print(answer.text, answer.usage)

`Client` and `AsyncClient` have the same verbs. Errors are those of `vscan.errors`.
"""

from vscan.errors import VScanError
from vscan.specs import (
    FrameCount,
    FrameRate,
    FrameSampling,
    JsonSchema,
    KeepRatio,
    KeepTokens,
    PositionPolicy,
    PruneSpec,
    Rater,
    Ratio,
    ReductionMethod,
    ReductionSpec,
    Regex,
    SamplingSpec,
    TargetAverage,
    TokensPerTile,
    TotalTokens,
)
from vscan_client.answer import (
    Answer,
    Area,
    ClientReport,
    Event,
    Finished,
    FinishReason,
    ImageReport,
    Kept,
    PickedBy,
    Place,
    PruneReport,
    Sample,
    SampledFrames,
    SampleEnd,
    Started,
    TextDelta,
    TileGrid,
    Timings,
    Token,
    Usage,
)
from vscan_client.async_client import AsyncClient
from vscan_client.async_stream import AsyncAnswerStream
from vscan_client.client import Client
from vscan_client.content import Image, ImageLike, Message, Role, Text, Video, VisualLike
from vscan_client.description import DecoderDescription, Description, EncoderDescription
from vscan_client.encoded import Encoded, EncodeTimings, TensorBytes
from vscan_client.options import Affinity, AskOptions, Retry, Timeout, Tls
from vscan_client.stream import AnswerStream

__all__ = [
    "Affinity",
    "Answer",
    "AnswerStream",
    "Area",
    "AskOptions",
    "AsyncAnswerStream",
    "AsyncClient",
    "Client",
    "ClientReport",
    "DecoderDescription",
    "Description",
    "EncodeTimings",
    "Encoded",
    "EncoderDescription",
    "Event",
    "FinishReason",
    "Finished",
    "FrameCount",
    "FrameRate",
    "FrameSampling",
    "Image",
    "ImageLike",
    "ImageReport",
    "JsonSchema",
    "KeepRatio",
    "KeepTokens",
    "Kept",
    "Message",
    "PickedBy",
    "Place",
    "PositionPolicy",
    "PruneReport",
    "PruneSpec",
    "Rater",
    "Ratio",
    "ReductionMethod",
    "ReductionSpec",
    "Regex",
    "Retry",
    "Role",
    "Sample",
    "SampleEnd",
    "SampledFrames",
    "SamplingSpec",
    "Started",
    "TargetAverage",
    "TensorBytes",
    "Text",
    "TextDelta",
    "TileGrid",
    "Timeout",
    "Timings",
    "Tls",
    "Token",
    "TokensPerTile",
    "TotalTokens",
    "Usage",
    "VScanError",
    "Video",
    "VisualLike",
]
