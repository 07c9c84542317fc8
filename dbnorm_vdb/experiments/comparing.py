"""From users to the figures of a report."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from dbnorm_vdb.experiments.binomial import binomial_p_value, clopper_pearson, sample_ratio_p_value
from dbnorm_vdb.experiments.gathering import Impressions
from dbnorm_vdb.experiments.rates import Interval, difference, wilson_interval
from dbnorm_vdb.experiments.report import (
    ArmReport,
    Comparison,
    Estimate,
    Look,
    Preference,
    SampleRatio,
    Sequential,
    Verdict,
)
from dbnorm_vdb.experiments.sequential import Floats, arm_scores, confidence_interval, log_wealth, p_values
from dbnorm_vdb.experiments.users import Users

METRICS = ("click_through", "reciprocal_rank")
MISMATCH_LEVEL = 0.001
"""A sample ratio with a smaller p-value is a mismatch (usual: Fabijan et al., KDD 2019)."""

_LOOKS = 100


def most_common_split(shown: Impressions, users: Users) -> int:
    """The split that most users came under. Rates of users from times with other weights are not to be mixed."""
    return int(np.bincount(users.split, minlength=len(shown.splits)).argmax())


def arm_report(name: str, share: float, users: Users, *, alpha: float) -> ArmReport:
    """The rates of an arm's users."""
    click_through = wilson_interval(users.outcomes["click_through"], level=1 - alpha)
    rank = wilson_interval(users.outcomes["reciprocal_rank"], level=1 - alpha)
    abandonment = Interval(1 - click_through.value, 1 - click_through.high, 1 - click_through.low)
    rates = [_estimate(rate) if len(users) else None for rate in (click_through, abandonment, rank)]
    return ArmReport(
        arm=name,
        share=share,
        users=len(users),
        impressions=int(users.impressions.sum()),
        clicks=int(users.clicks.sum()),
        click_through=rates[0],
        abandonment=rates[1],
        reciprocal_rank=rates[2],
    )


def comparison(
    shown: Impressions, users: Users, main: int, pair: tuple[int, int], metric: str, *, alpha: float, arms: int
) -> Comparison:
    """An arm against the baseline.

    Args:
        shown: for the splits and names.
        users: whose window is over.
        main: the split whose users the planned look takes; the sequential test takes all, each with the share that was
            due when they came.
        pair: the baseline and the arm, by number.
        metric: one of METRICS.
        alpha: the level, before Bonferroni's correction.
        arms: how many are compared with the baseline.
    """
    shares = np.array([_share(split, pair) for split in shown.splits])[users.split]
    chosen = users[np.isin(users.arm, pair) & (shares > 0) & (shares < 1)]
    shares = shares[np.isin(users.arm, pair) & (shares > 0) & (shares < 1)]
    outcomes, treated = chosen.outcomes[metric], chosen.arm == pair[1]
    scores, bounds = arm_scores(outcomes, treated, shares)
    sequential, verdict = _sequential(scores, bounds, chosen.final_at, limit=1.0, alpha=alpha, tests=arms)
    planned = chosen.split == main
    at_once = difference(outcomes[planned], treated[planned], level=1 - alpha / arms)
    return Comparison(
        metric=metric,
        baseline=shown.arms[pair[0]],
        arm=shown.arms[pair[1]],
        difference=Estimate(value=float(at_once.value), low=float(at_once.low), high=float(at_once.high)),
        p_value=min(1.0, arms * float(at_once.p_value)),
        sequential=sequential,
        verdict=verdict,
    )


def preference(shown: Impressions, users: Users, *, alpha: float) -> Preference:
    """Whom the users of interleaved results prefer, of those whose window is over."""
    assert shown.pair is not None
    found = users.outcomes["preference"]
    telling = found != 0
    for_arm = found[telling] > 0
    wins, trials = int(for_arm.sum()), len(for_arm)
    sequential, verdict = _sequential(
        for_arm - 0.5, np.ones(trials), users.final_at[telling], limit=0.5, alpha=alpha, centre=0.5
    )
    return Preference(
        baseline=shown.arms[shown.pair[0]],
        arm=shown.arms[shown.pair[1]],
        users=len(users),
        impressions=int(users.impressions.sum()),
        clicks=int(users.clicks.sum()),
        for_baseline=trials - wins,
        for_arm=wins,
        share=_estimate(clopper_pearson(wins, trials, level=1 - alpha)),
        p_value=binomial_p_value(wins, trials),
        sequential=sequential,
        verdict=verdict,
    )


def sample_ratio(what: str, counts: dict[str, int], shares: dict[str, float]) -> SampleRatio:
    """Whether counts are what shares make of them."""
    p_value = sample_ratio_p_value(list(counts.values()), list(shares.values()))
    return SampleRatio(what=what, counts=counts, shares=shares, p_value=p_value, mismatch=p_value < MISMATCH_LEVEL)


def _share(split: tuple[tuple[int, ...], tuple[float, ...]], pair: tuple[int, int]) -> float:
    """The probability of the second of a pair of arms, given one of them; 0 if the split lacks one."""
    weights = dict(zip(*split, strict=True))
    first, second = (weights.get(arm, 0.0) for arm in pair)
    return second / (first + second) if first and second else 0.0


def _sequential(
    values: Floats,
    bounds: Floats,
    times: Floats,
    *,
    limit: float,
    alpha: float,
    tests: int = 1,
    centre: float = 0.0,
) -> tuple[Sequential, Verdict]:
    """The sequential test that the values' mean is 0, which is shown as `centre`; it lies within `limit` of that."""
    if not len(values):
        return Sequential(p_value=1.0, interval=(centre - limit, centre + limit), history=[]), "undecided"
    wealth = log_wealth(values, bounds)
    path = np.minimum(1.0, tests * p_values(wealth))
    means = np.cumsum(values) / np.arange(1, len(values) + 1)
    interval = confidence_interval(values, bounds, level=1 - alpha / tests, lowest=-limit, highest=limit)
    rows = np.unique(np.linspace(0, len(values) - 1, min(len(values), _LOOKS), dtype=int))
    history = [
        Look(
            at=datetime.fromtimestamp(times[row], timezone.utc),
            users=int(row) + 1,
            value=centre + float(means[row]),
            p_value=float(path[row]),
        )
        for row in rows
    ]
    ends = (centre + interval[0], centre + interval[1])
    found = Sequential(p_value=float(path[-1]), interval=ends, history=history)
    if found.p_value > alpha:
        return found, "undecided"
    return found, "better" if means[wealth.argmax()] > 0 else "worse"


def _estimate(interval: Interval) -> Estimate:
    return Estimate(value=interval.value, low=interval.low, high=interval.high)
