"""Fusion of several rankings into one, as Milvus does it for `hybrid_search`: reciprocal ranks, or weighted scores.

The formulas, and the order of equal scores, are Milvus': a fusion of raw rankings is here what it is there. Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pymilvus import Function, RRFRanker, WeightedRanker

from dbnorm_vdb.errors import InvalidParameterError, UnsupportedQueryError
from dbnorm_vdb.parameters import check_finite

DEFAULT_K = 60
_MOST_K = 16_384

_ASCENDING = ("L2", "HAMMING", "JACCARD", "TANIMOTO")
"""Metrics by which the nearest have the lowest distances."""


class Ranking(NamedTuple):
    """One leg's hits of one query.

    Attributes:
        ids: of the n hits, best first.
        distances: (n,) theirs, on the engine's scale.
        metric: by which they are compared, in Milvus' words.
    """

    ids: Sequence[Any]
    distances: Sequence[float]
    metric: str


class Fused(NamedTuple):
    """A hit of the fusion: its score, and where it stands first: in which leg, and at which place."""

    score: float
    leg: int
    row: int


@dataclass(frozen=True)
class ReciprocalRanks:
    """`RRFRanker`: a hit scores the sum of `1 / (k + rank)` over the legs that found it, ranks from 1."""

    k: float = DEFAULT_K
    needs_metrics: bool = False

    def check(self, legs: int) -> None:
        """Any number of legs will do."""

    def descending(self, metrics: Sequence[str]) -> bool:
        """The best have the highest scores."""
        return True

    def scores(self, ranking: Ranking, leg: int, metrics: Sequence[str]) -> list[float]:
        """What the leg adds to the score of each of its hits."""
        return [1.0 / (self.k + rank) for rank in range(1, len(ranking.ids) + 1)]


@dataclass(frozen=True)
class WeightedScores:
    """`WeightedRanker`: a hit scores the weighted sum of its distances in the legs that found it.

    With `norm_score`, distances are first brought to between 0 and 1, best highest, by the arcus tangent that belongs
    to the metric. Without, they stay as they are; legs whose best are lowest are turned round if there are others.
    """

    weights: tuple[float, ...]
    norm_score: bool
    needs_metrics: bool = True

    def check(self, legs: int) -> None:
        """Raise InvalidParameterError unless each leg has a weight."""
        if len(self.weights) != legs:
            raise InvalidParameterError(f"the ranker has {len(self.weights)} weights for {legs} requests; one for each")

    def descending(self, metrics: Sequence[str]) -> bool:
        """Whether the best have the highest scores."""
        return self.norm_score or not all(metric in _ASCENDING for metric in metrics)

    def scores(self, ranking: Ranking, leg: int, metrics: Sequence[str]) -> list[float]:
        """What the leg adds to the score of each of its hits."""
        convert = _converter(ranking.metric, self.norm_score, turned=self.descending(metrics))
        # Milvus Lite returns the scores of BM25 with a minus
        distances = map(abs, ranking.distances) if ranking.metric == "BM25" else ranking.distances
        return [self.weights[leg] * convert(distance) for distance in distances]


def _converter(metric: str, normalize: bool, *, turned: bool) -> Callable[[float], float]:
    """What becomes of the distances of one leg before they are weighted."""
    if metric in _ASCENDING:
        return (lambda distance: 1.0 - 2.0 * math.atan(distance) / math.pi) if turned else float
    if not normalize:
        return float
    if metric == "COSINE":
        return lambda distance: (1.0 + distance) / 2.0
    if metric == "BM25":
        return lambda distance: 2.0 * math.atan(distance) / math.pi
    return lambda distance: 0.5 + math.atan(distance) / math.pi


def fuse(fusion: ReciprocalRanks | WeightedScores, rankings: Sequence[Ranking]) -> list[Fused]:
    """Fuse the legs' rankings of one query: each hit once, best first; those of the same score by their ids."""
    metrics = [ranking.metric for ranking in rankings]
    totals: dict[Any, float] = {}
    places: dict[Any, tuple[int, int]] = {}
    for leg, ranking in enumerate(rankings):
        for row, (item, score) in enumerate(zip(ranking.ids, fusion.scores(ranking, leg, metrics), strict=True)):
            totals[item] = totals.get(item, 0.0) + score
            places.setdefault(item, (leg, row))
    sign = -1.0 if fusion.descending(metrics) else 1.0
    ids = sorted(totals, key=lambda item: (sign * totals[item], item))
    return [Fused(totals[item], *places[item]) for item in ids]


def fusion_of(ranker: Any) -> ReciprocalRanks | WeightedScores:
    """The fusion that a ranker of the client stands for; none stands for `RRFRanker()`.

    Raises:
        UnsupportedQueryError: rankers that only the server has: decay, boost, models.
        InvalidParameterError: its parameters are out of their ranges.
    """
    if ranker is None:
        return ReciprocalRanks()
    if isinstance(ranker, RRFRanker):
        return _reciprocal(ranker.dict()["params"])
    if isinstance(ranker, WeightedRanker):
        return _weighted(ranker.dict()["params"])
    if isinstance(ranker, Function):
        params = {str(name).lower(): _parsed(value) for name, value in (ranker.params or {}).items()}
        kind = str(params.get("reranker", "")).lower()
        if kind == "rrf":
            return _reciprocal(params)
        if kind == "weighted":
            return _weighted(params)
        raise UnsupportedQueryError(
            f"the reranking function {kind or ranker.name!r} runs on the server only; with a normalised leg, results"
            " are fused here, by RRFRanker, WeightedRanker or the functions 'rrf' and 'weighted'; or pass method='raw'"
        )
    raise UnsupportedQueryError(
        f"a {type(ranker).__name__} is not fused here; use RRFRanker or WeightedRanker, or pass method='raw'"
    )


def _reciprocal(params: Mapping[str, Any]) -> ReciprocalRanks:
    k = check_finite(params.get("k", DEFAULT_K), what="k")
    if not 0 < k < _MOST_K:
        raise InvalidParameterError(f"k must be between 0 and {_MOST_K}, got {k!r}")
    return ReciprocalRanks(k)


def _weighted(params: Mapping[str, Any]) -> WeightedScores:
    weights = tuple(check_finite(weight, what="a weight") for weight in params.get("weights") or ())
    return WeightedScores(weights, norm_score=bool(params.get("norm_score", False)))


def _parsed(value: Any) -> Any:
    """A function's parameter, which may be written as text."""
    try:
        return json.loads(value.lower()) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value
