"""Exact tests of counts: whom users prefer, and whether the traffic was split as it should have been."""

from __future__ import annotations

from collections.abc import Sequence

from dbnorm_vdb.experiments.rates import Interval, scipy_stats


def binomial_p_value(successes: int, trials: int, share: float = 0.5) -> float:
    """The two-sided exact binomial test that each of `trials` succeeds with the probability `share`; 1 if none.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    return float(scipy_stats().binomtest(successes, trials, share).pvalue) if trials else 1.0


def clopper_pearson(successes: int, trials: int, *, level: float) -> Interval:
    """The share of successes, with its exact interval (Clopper and Pearson 1934).

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    if not trials:
        return Interval(0.5, 0.0, 1.0)
    found = scipy_stats().binomtest(successes, trials).proportion_ci(level, "exact")
    return Interval(successes / trials, float(found.low), float(found.high))


def sample_ratio_p_value(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Whether users were split by these shares: exact binomial tests of each arm against the rest, by Bonferroni.

    With two arms that is one test; with more it is exact as well, where chi-square would need many users in each.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    total = sum(counts)
    if len(counts) == 2:
        return binomial_p_value(counts[1], total, shares[1])
    tests = [binomial_p_value(count, total, share) for count, share in zip(counts, shares, strict=True)]
    return min(1.0, len(tests) * min(tests))
