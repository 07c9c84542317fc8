"""How alike two rankings are: overlap, and rank-biased overlap.

Rank-biased overlap is Webber, Moffat and Zobel, "A similarity measure for indefinite rankings" (TOIS 2010).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from dbnorm_vdb.evaluation.rankings import Run
from dbnorm_vdb.evaluation.results import Agreement

RBO_P = 0.9
"""Persistence: with it, the first ten results carry 86 % of the weight."""


def overlap(first: Sequence[str], second: Sequence[str], limit: int) -> float:
    """The share of the first `limit` results that both have, of as many as the longer one has; 1 if both are empty."""
    one, other = set(first[:limit]), set(second[:limit])
    longest = max(len(one), len(other))
    return len(one & other) / longest if longest else 1.0


def rank_biased_overlap(first: Sequence[str], second: Sequence[str], *, p: float = RBO_P) -> float:
    """Extrapolated rank-biased overlap of two rankings: 1 for equal, 0 for disjoint ones.

    With `X_d` the items that both have among their first `d`, lists of `s <= l` items (equation 32 of the paper):
    `(1-p)/p * (sum_{d=1..l} X_d/d p^d + sum_{d=s+1..l} X_s (d-s)/(s d) p^d) + ((X_l - X_s)/l + X_s/s) p^l`.

    Args:
        first, second: items, best first, each once.
        p: how likely a reader is to go on to the next result, in (0, 1).
    """
    short, long = sorted((first, second), key=len)
    s, l = len(short), len(long)  # noqa: E741  (the paper's names)
    if not s:
        return 1.0 if not l else 0.0
    depths = {item: depth for depth, item in enumerate(short, 1)}
    joined = [0] * (l + 1)  # how many items come to be in both lists at each depth
    for depth, item in enumerate(long, 1):
        if item in depths:
            joined[max(depth, depths[item])] += 1
    total, both, weight = 0.0, 0, 1.0
    both_short = 0
    for depth in range(1, l + 1):
        both += joined[depth]
        weight *= p
        total += both / depth * weight
        if depth == s:
            both_short = both
        elif depth > s:
            total += both_short * (depth - s) / (s * depth) * weight
    return (1 - p) / p * total + ((both - both_short) / l + both_short / s) * weight


def agreement_of(first: str, second: str, runs: Mapping[str, Run], keys: Sequence[str], limit: int) -> Agreement:
    """How alike two arms' results are, as means over all queries."""
    pairs = [(runs[first][key].items, runs[second][key].items) for key in keys]
    return Agreement(
        first=first,
        second=second,
        overlap=fmean(overlap(*pair, limit) for pair in pairs),
        rbo=fmean(rank_biased_overlap(*pair) for pair in pairs),
        same_first=fmean(one[:1] == other[:1] for one, other in pairs),
        identical=fmean(one[:limit] == other[:limit] for one, other in pairs),
    )
