"""From the client's points to candidates, and from ranked candidates back to the client's points."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from qdrant_client import models

from dbnorm_qdrant.payload import item_statistics, without_our_key
from dbnorm_qdrant.queries import engine_score
from dbnorm_qdrant.store import QdrantStore
from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.deadline import Deadline
from dbnorm_vdb.searching import Candidates, Outcome, SearchPlan
from dbnorm_vdb.serving import all_unknown
from dbnorm_vdb.statistics import CollectionStatistics, ItemStatistics, Metric
from dbnorm_vdb.steps import Steps, done, within, work


class QdrantPoints(NormalizedCollection):
    """What all searches of `QdrantAdapter` do with points. The vector is described before any of it is used."""

    _store: QdrantStore

    @property
    def _metric(self) -> Metric:
        return self._store.describe().metric

    def _candidates(self, points: Sequence[models.ScoredPoint]) -> Candidates:
        """Points as the engine scored them, in its order."""
        scores = np.array([point.score for point in points], dtype=np.float64)
        return Candidates(
            points, [point.id for point in points], -np.square(scores) if self._metric is Metric.EUCLIDEAN else scores
        )

    def _raw_rank(self, point: models.ScoredPoint) -> float:
        """Ascending where points are in the engine's order."""
        return point.score if self._metric is Metric.EUCLIDEAN else -point.score

    def _points(self, outcome: Outcome, selector: Any) -> list[models.ScoredPoint]:
        """The best points with their normalised scores, best first."""
        metric = self._metric
        return [
            clean(outcome.candidates.hits[row], selector, engine_score(score, metric))
            for row, score in zip(outcome.best.order.tolist(), outcome.best.scores.tolist(), strict=True)
        ]

    def _passing(self, points: Sequence[models.ScoredPoint], threshold: float | None) -> list[int]:
        """Positions of the points that are better than the score threshold, which is how the engine means it."""
        if threshold is None:
            return list(range(len(points)))
        sign = -1.0 if self._metric is Metric.EUCLIDEAN else 1.0
        return [row for row, point in enumerate(points) if sign * point.score > sign * threshold]

    def _replaced(self, points: Sequence[models.ScoredPoint], plan: SearchPlan) -> Steps[bool]:
        """Whether a fit has replaced the statistics that points were searched with: then search again."""
        assert plan.statistics is not None
        generation = plan.statistics.generation
        items, outdated = item_statistics([point.payload for point in points], generation)
        try:
            if outdated and (yield from self._current.newer(plan.statistics, plan.deadline)) is not None:
                return True
            # these are not all candidates: of the others some may have statistics
            if all_unknown(items, plan.statistics):
                looking = work(partial(self._store.has_items, generation))
                if not (yield from within(plan.deadline, looking)):
                    self._fall_back_uncovered(len(items), plan)
        except Exception as error:
            self._fall_back_or_raise(error, plan)
        return False


def lookup(
    found: Sequence[Candidates], statistics: CollectionStatistics, deadline: Deadline
) -> Steps[tuple[ItemStatistics, bool]]:
    """The statistics that points bring along, and whether they look like those of another generation."""
    payloads = [point.payload for candidates in found for point in candidates.hits]
    return done(item_statistics(payloads, statistics.generation))


def clean(point: models.ScoredPoint, selector: Any, score: float | None = None) -> models.ScoredPoint:
    """A copy of the point, with the payload that the caller asked for, and perhaps another score.

    A copy, since the client may hand out one point several times: in every group that it belongs to.
    """
    payload = without_our_key(point.payload, selector)
    return point.model_copy(update={"payload": payload, "score": point.score if score is None else score})
