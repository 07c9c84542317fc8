"""Candidates and their statistics -> the normalised top-k, and whether that is the whole gallery's. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import as_array
from dbnorm_vdb.errors import InvalidVectorsError
from dbnorm_vdb.methods import (
    Method,
    check_supported,
    form_of,
    lowest_adjustment,
    order_by,
    score_items,
)
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.statistics import CollectionStatistics, Floats, ItemStatistics

_NEWTON_STEPS = 5
_ROUNDING = 1e-9


class Reranked(NamedTuple):
    """The outcome of a re-ranking.

    Attributes:
        order: (k,) positions of the best candidates, best first.
        scores: (k,) their normalised similarities, descending.
        certified: whether these are the best of the whole gallery, under the order in which the engine returned the
            candidates: nothing beyond the last candidate can score more than the last of them.
        margin: their last score minus the most that anything beyond the last candidate can score, which is at least
            0 where certified; infinite where nothing is beyond, minus infinity where they are fewer than asked for.
        reach: the raw similarity down to which all items must be candidates for a certified result, as far as these
            can tell; where certified, that of the last candidate.
        beyond: the most that anything beyond the last candidate can score; minus infinity where nothing is beyond.
    """

    order: npt.NDArray[np.intp]
    scores: Floats
    certified: bool
    margin: float
    reach: float
    beyond: float

    @property
    def final(self) -> int:
        """How many of the best are so for good: nothing beyond the last candidate can come before them."""
        return int(np.count_nonzero(self.scores >= self.beyond))


def rerank(
    similarities: npt.ArrayLike,
    items: ItemStatistics,
    statistics: CollectionStatistics,
    *,
    limit: int | None = None,
    method: str | Method | None = None,
    complete: bool = False,
    at_most: float | None = None,
) -> Reranked:
    """Normalise the candidates of one query and return the best of them.

    Args:
        similarities: (c,) raw similarities in the engine's order, so the first is the query's raw top-1 (which
            decides the gates of `dis` and `dual_dis`). Larger is nearer; Euclidean as negative squared distance.
        items: the statistics of the c candidates. One without any counts as an average item.
        statistics: of the collection, same generation.
        limit: how many to return; None for all.
        method: overrides the fitted default.
        complete: the candidates are the whole gallery, or all of it that a filter leaves.
        at_most: leave out those that score more.

    Returns:
        Positions and scores of the best `limit`, or of all if there are fewer. Ties go by raw similarity, then by the
        order given. And the certificate: every form of score rises with the similarity and falls with the bias, so
        no item beyond the last candidate can score more than one as similar as that, with the lowest bias of the
        gallery.

    Raises:
        InvalidParameterError: `limit` below 1.
        InvalidVectorsError: the similarities are not as many as the items, or hold NaN.
        UnsupportedMethodError: the statistics cannot serve the method.
    """
    if limit is not None:
        check_count(limit, what="limit")
    values = as_array(similarities, what="similarities").astype(np.float64, copy=False)
    if values.shape != (len(items),):
        raise InvalidVectorsError(f"similarities of shape {values.shape} for {len(items)} candidates")
    last = float(np.minimum.reduce(values, initial=math.inf))
    if math.isnan(last):
        raise InvalidVectorsError(f"{int(np.isnan(values).sum())} of {len(values)} similarities are NaN")
    chosen = check_supported(method if method is not None else statistics.method, statistics)
    if not len(values):
        far = math.inf if complete else -math.inf
        return Reranked(np.empty(0, dtype=np.intp), values, complete, far, -math.inf, -far)
    form = form_of(chosen, {name: bool(items.activated(name)[0]) for name in chosen.banks} if chosen.dynamic else {})
    scores = score_items(form, values, items, statistics)
    if at_most is None:
        order = order_by(scores, values, limit)
    else:
        rows = np.flatnonzero(scores <= at_most)
        order = rows[order_by(scores[rows], values[rows], limit)]
    best = scores[order]
    if complete:
        return Reranked(order, best, True, math.inf, last, -math.inf)
    lowest = lowest_adjustment(form, statistics)
    if not form.logarithm:
        beyond = last - lowest
    elif last > 0:
        beyond = last - lowest + math.log(last) / statistics.columns[form.columns[0]].beta
    else:  # from here on similarities alone decide
        beyond = float(scores.min())
    if not len(order) or (limit is not None and len(order) < limit):
        return Reranked(order, best, False, -math.inf, -math.inf, beyond)
    worst = float(best[-1])
    margin = worst - beyond
    if margin >= 0 or (form.logarithm and last <= 0):
        reach = last
    elif form.logarithm:
        reach = one_gate_reach(worst + lowest, statistics.columns[form.columns[0]].beta)
    else:
        reach = worst + lowest
    return Reranked(order, best, margin >= 0, margin, reach, beyond)


def one_gate_reach(wanted: float, beta: float) -> float:
    """The similarity `s > 0` at which `s + log(s) / beta` is `wanted`, or a little less.

    Newton's method on a concave function: whatever it starts from, every step ends below the root. The steps are
    written for `log(s)`, which may be far below that of the least positive number.
    """
    logarithm = min(beta * wanted, 0.0)
    for _ in range(_NEWTON_STEPS):
        logarithm += math.log((beta * wanted - logarithm + 1.0) / (beta * math.exp(logarithm) + 1.0))
    return math.nextafter(math.exp(logarithm - _ROUNDING), 0.0)
