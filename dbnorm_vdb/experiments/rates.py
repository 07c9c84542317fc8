"""Rates and their differences at one planned look, with the user as the unit.

The arms are drawn user by user, so a user's impressions are not independent observations: whoever searches a hundred
times would count a hundred times, and intervals would be too narrow. Here every user counts once, with the mean over
their impressions. (Deng et al., "Applying the delta method in metric analytics", KDD 2018, section 3.)
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from dbnorm_vdb.errors import MissingDependencyError
from dbnorm_vdb.experiments.sequential import Booleans, Floats

FEWEST_USERS = 10
"""An arm with fewer users is not compared."""


class Interval(NamedTuple):
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Differences of two arms' means: (...) each.

    `p_value` is two-sided; 1 where there are too few users, or no variance, to say anything.
    """

    value: Floats
    low: Floats
    high: Floats
    p_value: Floats


def wilson_interval(outcomes: Floats, *, level: float) -> Interval:
    """The mean of users' outcomes in [0, 1], (n,), with Wilson's score interval on the effective sample size.

    That is the number of independent yes-or-no observations that would have the same variance: the number of users if
    each has one impression, more if the mean over several makes an outcome more certain (Korn and Graubard 1998).
    """
    count = len(outcomes)
    if not count:
        return Interval(math.nan, 0.0, 1.0)
    mean = float(outcomes.mean())
    variance = float(outcomes.var())
    size = count if variance == 0 else count * mean * (1 - mean) / variance
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    centre = (mean + z2 / (2 * size)) / (1 + z2 / size)
    half = math.sqrt(z2 * (mean * (1 - mean) / size + z2 / (4 * size**2))) / (1 + z2 / size)
    return Interval(mean, max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half)))


def difference(outcomes: Floats, treated: Booleans, *, level: float) -> Difference:
    """The second arm's mean minus the first's, by Welch's t-test on users' outcomes.

    Args:
        outcomes: (..., n) each user's.
        treated: (..., n) whether the user is in the second arm.
        level: of the interval.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    stats = scipy_stats()
    groups = [_moments(outcomes, ~treated), _moments(outcomes, treated)]
    (first, first_error, first_count), (second, second_error, second_count) = groups
    error = first_error + second_error
    enough = (np.minimum(first_count, second_count) >= FEWEST_USERS) & (error > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = error**2 / (first_error**2 / (first_count - 1) + second_error**2 / (second_count - 1))
        freedom = np.where(enough, freedom, 1.0)
        statistic = np.where(enough, (second - first) / np.sqrt(error), 0.0)
    p_value = np.where(enough, 2 * stats.t.sf(np.abs(statistic), freedom), 1.0)
    half = np.where(enough, stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(error), np.inf)
    value = second - first
    return Difference(value, np.maximum(value - half, -1.0), np.minimum(value + half, 1.0), p_value)


def _moments(outcomes: Floats, chosen: Booleans) -> tuple[Floats, Floats, Floats]:
    """(...) mean, squared standard error of the mean, and number of the chosen along the last axis."""
    count = chosen.sum(axis=-1).astype(np.float64)
    least = np.maximum(count, 1)
    mean = (outcomes * chosen).sum(axis=-1) / least
    squares = ((outcomes - mean[..., None]) ** 2 * chosen).sum(axis=-1)
    return mean, squares / np.maximum(count - 1, 1) / least, count


def scipy_stats() -> Any:
    """scipy.stats, or an error that names the extra."""
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingDependencyError("scipy", "evaluation", "analysing an experiment") from error
    return stats
