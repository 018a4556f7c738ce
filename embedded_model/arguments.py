"""Kinds of values on the command lines of this package; argparse shows their names when a value is not of the kind."""

from __future__ import annotations

import argparse


def at_least_one(text: str) -> int:
    """A whole number, 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}, limit at least 1")
    return number


def above_zero(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}, limit above 0")
    return number
