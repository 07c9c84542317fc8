"""Checks of the numbers that callers pass, so that each message says what was wrong and what was seen."""

from __future__ import annotations

import math
from numbers import Integral, Real

from dbnorm_vdb.errors import InvalidParameterError


def check_beta(beta: object, *, what: str = "beta") -> float:
    """Return `beta` as a float, or raise InvalidParameterError unless it is a finite number greater than 0."""
    value = float(beta) if isinstance(beta, Real) and not isinstance(beta, bool) else math.nan
    if not (math.isfinite(value) and value > 0):
        raise InvalidParameterError(f"{what} is an inverse temperature and must be a finite number > 0, got {beta!r}")
    return value


def check_finite(number: object, *, what: str) -> float:
    """Return `number` as a float, or raise InvalidParameterError unless it is a finite number."""
    value = float(number) if isinstance(number, Real) and not isinstance(number, bool) else math.nan
    if not math.isfinite(value):
        raise InvalidParameterError(f"{what} must be a finite number, got {number!r}")
    return value


def check_count(count: object, *, what: str, least: int = 1) -> int:
    """Return `count` as an int, or raise InvalidParameterError unless it is an integer of at least `least`."""
    if isinstance(count, bool) or not isinstance(count, (int, Integral)):  # int first: soon told
        raise InvalidParameterError(f"{what} must be an integer, got {count!r}")
    if int(count) < least:
        raise InvalidParameterError(f"{what} must be at least {least}, got {count!r}")
    return int(count)


def check_ttl(seconds: object) -> None:
    """Raise InvalidParameterError unless the time to live of statistics is a number of at least 0 seconds."""
    if not (isinstance(seconds, Real) and float(seconds) >= 0):
        raise InvalidParameterError(f"statistics_ttl must be at least 0 seconds, got {seconds!r}")


def length_of(vector: object) -> float | None:
    """The Euclidean length of a vector in a list, which is told in less time than an array is made; None for others."""
    if type(vector) is not list:
        return None
    try:
        return math.hypot(*vector)
    except (TypeError, OverflowError):
        return None
