"""Where an image's tokens were found."""

from enum import IntEnum


class Place(IntEnum):
    """The numbers are the wire's."""

    UNSPECIFIED = 0
    ENCODED = 1  # nowhere: the vision transformer ran for this request
    MEMORY = 2  # in the memory of the service that answers
    REDIS = 3
    SHARED = 4  # another request for the same image was under way
    ENCODER_MEMORY = 5  # in the encoder's memory, asked by the decoder
