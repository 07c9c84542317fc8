"""What a normalised call of Qdrant should return: every stage of it evaluated naively, from the full matrices.

A stage is a query with a limit, over the whole collection or over what its prefetches return. Where one scores by the
fitted vector, its scores are those of `oracle.additive_scores`; what combines stages is done by the formulas in
Qdrant's documentation (reciprocal rank fusion, distribution-based score fusion) and by the papers (maximal marginal
relevance, Carbonell & Goldstein 1998); what does not concern the fitted vector is asked of the client.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from adapters.world import FIT, similarity
from congruence.qdrant_gallery import Gallery
from oracle import additive_scores
from qdrant_client import models
from qdrant_client.hybrid.formula import evaluate_expression, parse_defaults

Ranking = list[tuple[Any, float]]
_LAST = -1e6
"""Where only the order is promised (`dual_dis`, one gate open, `s <= 0`): after what is positive, by `s`."""


@dataclass(frozen=True)
class Oracle:
    """The normalised results of one collection.

    Attributes:
        gallery: the collection.
        method: of normalisation.
        unscored: the points met so far of which only the order is promised, not the score (`dual_dis`).
    """

    gallery: Gallery
    method: str
    unscored: set[Any] = field(default_factory=set)

    def ranking(
        self,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: Any = None,
        limit: int = 10,
        offset: int | None = None,
        score_threshold: float | None = None,
        **kwargs: Any,
    ) -> Ranking:
        """Ids and scores, best first, of `query_points`."""
        mmr = query.mmr if isinstance(query, models.NearestQuery) else None
        end = (offset or 0) + limit
        pool = end if mmr is None else (limit if mmr.candidates_limit is None else mmr.candidates_limit)
        found = self._stage(query, using, prefetch, query_filter, pool, score_threshold)
        if mmr is not None:
            found = self._diverse(found, mmr, end)
        return found[offset or 0 : end]

    def groups(self, key: str, limit: int = 10, group_size: int = 3, **arguments: Any) -> list[tuple[Any, Ranking]]:
        """Groups of all points, by one key; prefetches are without limits."""
        n = len(self.gallery.ids)
        arguments["prefetch"] = _unlimited(arguments.get("prefetch"), n)
        points = self.gallery.client.retrieve(self.gallery.plain, self.gallery.ids)
        values = {point.id: (point.payload or {})[key] for point in points}
        groups: dict[Any, Ranking] = {}
        for item, score in self.ranking(**{**arguments, "limit": n}):
            groups.setdefault(values[item], []).append((item, score))
        return [(name, hits[:group_size]) for name, hits in groups.items()][:limit]

    # --- stages ------------------------------------------------------------------------------------------------

    def _stage(
        self, query: Any, using: str | None, prefetch: Any, conditions: Any, limit: int, threshold: float | None
    ) -> Ranking:
        legs = prefetch if isinstance(prefetch, list) else [prefetch] if prefetch else []
        sources = [self._leg(leg, conditions) for leg in legs]
        allowed = self._matching(conditions)
        if legs:
            allowed &= {item for source in sources for item, _ in source}
        if isinstance(query, (models.FusionQuery, models.RrfQuery)):
            return _at_least(
                _fused(query, [self._upright(s, leg) for s, leg in zip(sources, legs, strict=True)]), threshold, limit
            )
        if isinstance(query, models.FormulaQuery):
            return _at_least(self._formula(query, sources), threshold, limit)
        if using == self.gallery.using and not isinstance(query, (type(None), models.OrderByQuery)):
            return self._ours(query, allowed, limit, threshold)
        there = models.Filter(must=[models.HasIdCondition(has_id=[*allowed])])
        found = self.gallery.client.query_points(
            self.gallery.plain, query, using, query_filter=there, limit=limit, score_threshold=threshold
        )
        return [(point.id, point.score) for point in found.points]

    def _leg(self, leg: models.Prefetch, above: Any) -> Ranking:
        both = [one for one in (above, leg.filter) if one is not None]
        conditions = models.Filter(must=both) if both else None
        limit = 10 if leg.limit is None else leg.limit
        return self._stage(leg.query, leg.using, leg.prefetch, conditions, limit, leg.score_threshold)

    def _matching(self, conditions: Any) -> set[Any]:
        found, _ = self.gallery.client.scroll(self.gallery.plain, scroll_filter=conditions, limit=10_000)
        return {record.id for record in found}

    def _ours(self, query: Any, allowed: set[Any], limit: int, threshold: float | None) -> Ranking:
        """Points by their normalised scores, as the engine calls them."""
        vector, named = self._vector(query)
        world, ids = self.gallery.world, self.gallery.ids
        keep = np.array([item in allowed and item not in named for item in ids])
        s = similarity(vector[None], world.items, world.metric)
        scores = additive_scores(self.method, np.where(keep, s, -np.inf), **world.banks(), **FIT)[0]
        unscored = {ids[row] for row in np.flatnonzero(keep & np.isnan(scores)).tolist()}
        below = _LAST if (s[0, keep] > 0).any() else 0.0
        scores = np.where(np.isnan(scores), below + s[0], scores)
        order = sorted(np.flatnonzero(keep).tolist(), key=lambda row: (-scores[row], -s[0, row]))
        sign = -1 if world.metric == "euclidean" else 1
        found = [(ids[row], self._engine_score(float(scores[row]))) for row in order]
        kept = [(i, v) for i, v in found if threshold is None or sign * v > sign * threshold][:limit]
        self.unscored.update({i for i, _ in kept} & unscored)
        return kept

    def _vector(self, query: Any) -> tuple[np.ndarray, list[Any]]:
        """A query's vector, and the points that it names."""
        if isinstance(query, models.NearestQuery):
            query = query.nearest
        examples = [query]
        if isinstance(query, models.RecommendQuery):
            positive, negative = query.recommend.positive or [], query.recommend.negative or []
            examples = [*positive, *negative]
            means = [np.mean([self._stored(one) for one in ones], axis=0) for ones in (positive, negative) if ones]
            vector = means[0] if len(means) == 1 else 2 * means[0] - means[1]
        else:
            vector = self._stored(query)
        return vector, [one for one in examples if isinstance(one, (int, str))]

    def _stored(self, example: Any) -> np.ndarray:
        """The vector of an example; a point's as the engine keeps it."""
        vector = self.gallery.vectors_of(example).astype(np.float64)
        if isinstance(example, (int, str)) and self.gallery.world.metric == "cosine":
            return vector / np.linalg.norm(vector)
        return vector

    def _engine_score(self, value: float) -> float:
        if self.gallery.world.metric != "euclidean":
            return value
        return math.copysign(math.sqrt(abs(value)), -value)

    # --- what is made of stages --------------------------------------------------------------------------------

    def _upright(self, source: Ranking, leg: models.Prefetch) -> Ranking:
        """A leg whose larger scores are better."""
        flip = leg.using == self.gallery.using and self.gallery.world.metric == "euclidean" and _scores(leg.query)
        return [(item, -score) for item, score in source] if flip else source

    def _formula(self, query: models.FormulaQuery, sources: Sequence[Ranking]) -> Ranking:
        points = self.gallery.client.retrieve(self.gallery.plain, self.gallery.ids)
        payloads = {point.id: point.payload or {} for point in points}
        scores: list[Any] = [dict(source) for source in sources]
        defaults = parse_defaults(query.defaults or {})
        found = {
            item: evaluate_expression(query.formula, item, scores, payloads[item], {}, defaults)
            for item in {item for source in sources for item, _ in source}
        }
        return _sorted(found)

    def _diverse(self, found: Ranking, mmr: models.Mmr, limit: int) -> Ranking:
        """Maximal marginal relevance of a ranking."""
        world, ids = self.gallery.world, [item for item, _ in found]
        diversity = 0.5 if mmr.diversity is None else mmr.diversity
        vectors = world.items[[self.gallery.ids.index(item) for item in ids]]
        alike = similarity(vectors, vectors, world.metric)
        relevance = [score if world.metric != "euclidean" else -math.copysign(score**2, score) for _, score in found]
        chosen: list[int] = []
        while len(chosen) < min(limit, len(found)):
            left = [place for place in range(len(found)) if place not in chosen]
            gains = [
                (1 - diversity) * relevance[place] - diversity * max(alike[place, chosen])
                if chosen
                else relevance[place]
                for place in left
            ]
            chosen.append(left[int(np.argmax(gains))])
        return [found[place] for place in chosen]


def _fused(query: Any, sources: Sequence[Ranking]) -> Ranking:
    if isinstance(query, models.FusionQuery) and query.fusion == models.Fusion.DBSF:
        return _by_distribution(sources)
    k, weights = 2, [1.0] * len(sources)
    if isinstance(query, models.RrfQuery):
        k = 2 if query.rrf.k is None else query.rrf.k
        weights = query.rrf.weights or weights
    total: dict[Any, float] = {}
    for source, weight in zip(sources, weights, strict=True):
        for place, (item, _) in enumerate(source):
            total[item] = total.get(item, 0.0) + 1 / ((place + 1) / weight + k - 1)
    return _sorted(total)


def _by_distribution(sources: Sequence[Ranking]) -> Ranking:
    """Scores from three standard deviations below a source's mean (0) to three above (1), added up."""
    total: dict[Any, float] = {}
    for source in sources:
        scores = np.array([score for _, score in source])
        deviation = scores.std(ddof=1) if len(scores) > 1 else 0.0
        low = scores.mean() - 3 * deviation if len(scores) else 0.0
        for item, score in source:
            total[item] = total.get(item, 0.0) + ((score - low) / (6 * deviation) if deviation > 0 else 0.5)
    return _sorted(total)


def _sorted(scores: dict[Any, float]) -> Ranking:
    return sorted(scores.items(), key=lambda pair: -pair[1])


def _at_least(found: Ranking, threshold: float | None, limit: int) -> Ranking:
    return [(item, score) for item, score in found if threshold is None or score >= threshold][:limit]


def _scores(query: Any) -> bool:
    """Whether a leg's scores are those of a vector."""
    return not isinstance(query, (type(None), models.FusionQuery, models.RrfQuery, models.FormulaQuery))


def _unlimited(prefetch: Any, limit: int) -> Any:
    legs = prefetch if isinstance(prefetch, list) else [prefetch] if prefetch else []
    return [
        leg.model_copy(update={"limit": limit, "prefetch": _unlimited(leg.prefetch, limit) or None}) for leg in legs
    ]


def assert_same_ranking(found: Ranking, wanted: Ranking, everything: Ranking, *, tolerance: float) -> None:
    """Assert that points are in the order of their scores, and have those; ties may stand either way round.

    Args:
        found: the result.
        wanted: what it should be.
        everything: the same without limit, for the scores of points that are tied with the last.
        tolerance: of scores.
    """
    scores = dict(everything)
    assert len(found) == len(wanted)
    for (item, score), (other, best) in zip(found, wanted, strict=True):
        assert abs(score - best) <= tolerance, f"{found} is not {wanted}"
        assert abs(score - scores[item]) <= tolerance, f"{item} scores {scores.get(item)}, like {other}, not {score}"
    assert len({item for item, _ in found}) == len(found)
