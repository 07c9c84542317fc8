"""An always-valid test and interval, which may be looked at as often as one likes: betting on bounded observations.

Let observations `z_1, z_2, ...` have the conditional mean `m` under the hypothesis, `E[z_i | z_1 .. z_{i-1}] = m`, and
let `|z_i - m| <= c_i` with a `c_i` known beforehand. Whoever bets the share `f` of their money on each, `|f| < 1`, has

    W_n(f) = prod_i (1 + f (z_i - m) / c_i),    E_n = a weighted average of W_n(f) over a fixed grid of f of both signs.

Each factor is positive and has the conditional mean 1, so every `W(f)`, and their average `E`, is a martingale that
starts at 1 and is never negative: an e-process. By Ville's inequality (1939) the probability that it *ever* reaches
`1/alpha` is at most `alpha`, however many observations there are and whenever one looks or stops. So

    p_n = min over i <= n of 1 / E_i

is a p-value at all times, and the means `m` whose `E_n` is below `1/alpha` are a confidence sequence. It needs no
sample size, no variance and no normal approximation. (Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 86, 2024; mixing over bets goes back to Robbins 1970, and is what mixture sequential
probability ratio tests do.)

The best bet on an effect `d` of observations of variance `v` is about `f = c d / v`. The grid has ten, from 1/200 to
9/10 in equal ratios, so that one is within a third of the best for effects that take some tens to some millions of
observations to see. Their weights are in proportion to `sqrt(f)`: most experiments are small, and the large ones, whose
best bets are small, can better afford the price of the mixture, `log(1 / weight)` in `log E`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Booleans: TypeAlias = npt.NDArray[np.bool_]

FRACTIONS = np.geomspace(0.005, 0.9, 10)
WEIGHTS = np.sqrt(FRACTIONS) / np.sqrt(FRACTIONS).sum()

_BETS = [
    (sign * f, math.log(w / 2)) for f, w in zip(FRACTIONS.tolist(), WEIGHTS.tolist(), strict=True) for sign in (1, -1)
]
_PRECISION = 1e-6


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
    for fraction, log_weight in _BETS:
        np.logaddexp(total, log_weight + np.cumsum(np.log1p(fraction * scaled), axis=-1), out=total)
    return total


def p_values(log_wealths: Floats) -> Floats:
    """(..., n) the always-valid p-value after each observation: it never rises."""
    return np.exp(-np.maximum.accumulate(np.maximum(log_wealths, 0.0), axis=-1))


def confidence_interval(
    values: Floats, bounds: Floats, *, level: float, lowest: float, highest: float
) -> tuple[float, float]:
    """The means that the bets up to now do not speak against: those with `E_n < 1 / (1 - level)`.

    The truth is among them at all times together with the probability `level`. Seen as a function of the mean, `E_n` is
    convex, and below 1 at the mean of the values (weighted by `1 / c_i`), so they are an interval around it. It does
    not depend on the order of the values, so that after a small p-value it may come to hold 0 again, if those who came
    later were otherwise.

    Args:
        values: (n,) observations.
        bounds: (n,) of their distance from any mean in question.
        level: for instance 0.95.
        lowest: the least mean in question.
        highest: the greatest.
    """
    if not len(values):
        return lowest, highest

    def rejected(mean: float) -> bool:
        scaled = (values - mean) / bounds
        wealth = [log_weight + float(np.log1p(fraction * scaled).sum()) for fraction, log_weight in _BETS]
        return bool(np.logaddexp.reduce(wealth) >= -math.log(1 - level))

    inside = float(np.clip(np.average(values, weights=1 / bounds), lowest, highest))
    return _border(rejected, inside, lowest), _border(rejected, inside, highest)


def _border(rejected: Callable[[float], bool], inside: float, end: float) -> float:
    """The last that is not rejected on the way from `inside` to `end`, rounded outwards; `end` if none is rejected."""
    if not rejected(end):
        return end
    while abs(end - inside) > _PRECISION:
        middle = (inside + end) / 2
        inside, end = (inside, middle) if rejected(middle) else (middle, end)
    return end
