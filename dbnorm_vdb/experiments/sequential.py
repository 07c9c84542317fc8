"""An always-valid test and interval, which may be looked at as often as one likes: betting on bounded observations.

Let observations `z_1, z_2, ...` have the conditional mean `m` under the hypothesis, `E[z_i | z_1 .. z_{i-1}] = m`, and
let `|z_i - m| <= c_i` with a `c_i` known beforehand. Whoever bets the share `f` of their money on each, `|f| < 1`, has

    W_n(f) = prod_i (1 + f (z_i - m) / c_i),    E_n = the average of W_n(f) over a fixed grid of f, of both signs.

Each factor is positive and has the conditional mean 1, so every `W(f)`, and their average `E`, is a martingale that
starts at 1 and is never negative: an e-process. By Ville's inequality (1939) the probability that it *ever* reaches
`1/alpha` is at most `alpha`, however many observations there are and whenever one looks or stops. So

    p_n = min over i <= n of 1 / E_i

is a p-value at all times, and the means `m` whose `E` has never reached `1/alpha` are a confidence sequence. It needs
no sample size, no variance and no normal approximation. (Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 86, 2024; mixing over bets goes back to Robbins 1970, and is what mixture sequential
probability ratio tests do.)

The best bet on an effect `d` of observations of variance `v` is about `f = c d / v`. The grid has fifteen, from 1/200
to 9/10 in equal ratios, so that one is within a fifth of the best for effects that take some tens to some millions of
observations to see. The mixture is behind the best of them by `log(30)` in `log E` at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Booleans: TypeAlias = npt.NDArray[np.bool_]

FRACTIONS = np.geomspace(0.005, 0.9, 15)

_CHECKPOINTS = 1000
_STEPS = 40


def arm_scores(outcomes: Floats, treated: Booleans, share: Floats | float) -> tuple[Floats, Floats]:
    """Observations whose mean is the difference of two arms' mean outcomes, and their bounds.

    User `i`, who is in the second arm with the known probability `s_i` and has the outcome `y_i` in [0, 1], scores

        z_i = (y_i - b_i) (1 / s_i if in the second arm else -1 / (1 - s_i)),

    where `b_i` is the mean outcome of the users before: inverse-propensity weighting with a baseline, which lowers the
    variance and no more. Whatever happened before, `E[z_i] = E[y_i | second] - E[y_i | first]`, since the arm is drawn
    independently of it. (Waudby-Smith et al., "Anytime-valid off-policy inference for contextual bandits", 2022.)

    Args:
        outcomes: (..., n) in the order in which they became final.
        treated: (..., n) whether the user is in the second arm.
        share: (..., n) or a number in (0, 1): the probability of that.

    Returns:
        (..., n) the scores, and (..., n) `c_i` such that `|z_i - d| <= c_i` for every difference `d` in [-1, 1].
    """
    before = np.cumsum(outcomes, axis=-1) - outcomes
    baseline = (before + 0.5) / (np.arange(outcomes.shape[-1]) + 1)
    shares = np.broadcast_to(np.asarray(share, dtype=np.float64), outcomes.shape)
    scores = (outcomes - baseline) * np.where(treated, 1 / shares, -1 / (1 - shares))
    return scores, 1 + 1 / np.minimum(shares, 1 - shares)


def log_wealth(values: Floats, bounds: Floats | float, mean: float = 0.0) -> Floats:
    """(..., n) `log E` after each of the observations, (..., n), if their mean is `mean`."""
    scaled = (values - mean) / bounds
    total = np.full(scaled.shape, -np.inf)
    for fraction in _both_signs():
        np.logaddexp(total, np.cumsum(np.log1p(fraction * scaled), axis=-1), out=total)
    return total - math.log(2 * len(FRACTIONS))


def p_values(log_wealths: Floats) -> Floats:
    """(..., n) the always-valid p-value after each observation: it never rises."""
    return np.exp(-np.maximum.accumulate(np.maximum(log_wealths, 0.0), axis=-1))


def confidence_interval(
    values: Floats, bounds: Floats, *, level: float, lowest: float, highest: float
) -> tuple[float, float] | None:
    """The means that an always-valid test at `1 - level` has not rejected up to now.

    Seen from `mean`, `E` is convex at all times, so they are an interval. 0 is outside if and only if the p-value is at
    most `1 - level`.

    Args:
        values: (n,) observations.
        bounds: (n,) of their distance from any mean in question.
        level: for instance 0.95.
        lowest: the least mean in question.
        highest: the greatest.

    Returns:
        The interval; None if no mean is left, which says that it did not stay the same.
    """
    if not len(values):
        return lowest, highest
    limit = -math.log(1 - level)
    at_zero = log_wealth(values, bounds)
    stops = np.unique([*np.linspace(1, len(values), min(len(values), _CHECKPOINTS), dtype=int), at_zero.argmax() + 1])

    def excess(mean: float) -> float:
        """By how much `log E` has exceeded the limit; looking at fewer times is valid as well."""
        return float(_log_wealth_at(values, bounds, mean, stops).max()) - limit

    inside = _least(excess, lowest, highest, start=float(np.clip(values.mean(), lowest, highest)))
    if excess(inside) >= 0:
        return None
    return _border(excess, inside, lowest), _border(excess, inside, highest)


def _both_signs() -> Floats:
    return np.concatenate([FRACTIONS, -FRACTIONS])


def _log_wealth_at(values: Floats, bounds: Floats, mean: float, stops: npt.NDArray[np.intp]) -> Floats:
    """`log_wealth` after `stops[j]` observations each, with less work."""
    scaled = (values - mean) / bounds
    starts = np.concatenate([[0], stops[:-1]])
    total = np.full(len(stops), -np.inf)
    for fraction in _both_signs():
        np.logaddexp(total, np.cumsum(np.add.reduceat(np.log1p(fraction * scaled), starts)), out=total)
    return total - math.log(2 * len(FRACTIONS))


def _least(function: Callable[[float], float], low: float, high: float, *, start: float) -> float:
    """Where a function whose sublevel sets are intervals is negative, or else about least."""
    if function(start) < 0:
        return start
    for _ in range(_STEPS):  # ternary search
        left, right = low + (high - low) / 3, high - (high - low) / 3
        at_left, at_right = function(left), function(right)
        if min(at_left, at_right) < 0:
            return left if at_left < at_right else right
        low, high = (low, right) if at_left < at_right else (left, high)
    return (low + high) / 2


def _border(function: Callable[[float], float], inside: float, end: float) -> float:
    """Where the function becomes positive between `inside` and `end`, on the outer side of it; `end` if nowhere."""
    if function(end) < 0:
        return end
    outside = end
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if abs(outside - inside) < 1e-5:
            break
        if function(middle) < 0:
            inside = middle
        else:
            outside = middle
    return outside
