"""How one item comes to its place among the results of one query."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Vectors, check_vectors
from dbnorm_vdb.biases import bank_side, item_side
from dbnorm_vdb.errors import InvalidParameterError, InvalidVectorsError
from dbnorm_vdb.explanations import LIMIT, ItemExplanation, Term
from dbnorm_vdb.methods import Form, Method, adjustments_of, check_supported, form_of
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.reranking import rerank
from dbnorm_vdb.searching import DEFAULT_MAX_CANDIDATES, next_window
from dbnorm_vdb.statistics import CollectionStatistics, Floats, ItemId, ItemStatistics
from dbnorm_vdb.store import Hit, Page, Store

_FIRST_WINDOW = 100
_ROUNDING = 1e-5
"""Relative to the similarity, how far that of the engine may be from ours."""


class _Seen(NamedTuple):
    """The candidates of a query, nearest first.

    Attributes:
        ids: of the c candidates.
        scores: (c,) on the engine's scale.
        similarities: (c,) the same, larger is nearer.
        items: their statistics.
        complete: they are all items there are.
        row: of the item that is looked for; None where it is not among them.
    """

    ids: list[ItemId]
    scores: Floats
    similarities: Floats
    items: ItemStatistics
    complete: bool
    row: int | None


def explain_item(
    store: Store,
    nearest: Callable[..., list[list[Hit]]],
    query: npt.ArrayLike,
    item: ItemId,
    *,
    statistics: CollectionStatistics | None,
    method: str | Method | None,
    max_candidates: int | None,
) -> ItemExplanation:
    """Explain an item's place; see `NormalizedCollection.explain`.

    Args:
        store: the engine's side.
        nearest: the collection's own searches.
        query: (d,) or (1, d).
        item: its id.
        statistics: of the collection; None where nothing is fitted.
        method: instead of the fitted default.
        max_candidates: how far to widen the window.
    """
    info = store.describe()
    vector = check_vectors(np.atleast_2d(np.asarray(query)), what="query", dimension=info.dimension)
    if len(vector) != 1:
        raise InvalidVectorsError(f"query: one vector is explained at a time, got {len(vector)}")
    most = min(DEFAULT_MAX_CANDIDATES, store.max_window)
    if max_candidates is not None and check_count(max_candidates, what="max_candidates") > store.max_window:
        raise InvalidParameterError(
            f"max_candidates={max_candidates}: {store.engine} returns at most {store.max_window} hits"
        )
    most = max_candidates or most
    chosen = Method.RAW if statistics is None else check_supported(method or statistics.method, statistics)
    page = store.fetch([item])
    if not page.ids:
        vector_name = f" {info.name!r}" if info.name else ""
        raise InvalidParameterError(
            f"collection {store.collection!r} has no item {item!r}, or it lacks the vector{vector_name}"
        )
    default = _FIRST_WINDOW
    if statistics is not None and statistics.calibration is not None:
        default = statistics.calibration.window(LIMIT)
    return _Search(store, nearest, vector, page, statistics, chosen).explain(default, most)


class _Search:
    """Widens the window of one query until an item is found, and its rank is certain."""

    def __init__(
        self,
        store: Store,
        nearest: Callable[..., list[list[Hit]]],
        query: Vectors,
        page: Page,
        statistics: CollectionStatistics | None,
        method: Method,
    ) -> None:
        self._store = store
        self._nearest = nearest
        self._query = query
        (self._item,) = page.ids
        self._metric = store.describe().metric
        queries, offsets = bank_side(query, self._metric, 1.0)
        own = queries.astype(np.float64) @ item_side(page.vectors, self._metric)[0]
        self._own = float((own if offsets is None else own + offsets)[0])
        self._statistics = None if method is Method.RAW else statistics
        self._method = method

    def explain(self, default: int, most: int) -> ItemExplanation:
        """Start from the default window, and go as far as `most`."""
        window = min(default, most)
        while True:
            seen = self._look(window)
            ranked, certain, reach = self._ranked(seen)
            if (seen.row is not None and certain) or window >= most or seen.complete:
                return self._explanation(seen, ranked, certain, default)
            window = min(most, next_window(seen.similarities, reach, self._store.count()))

    def _look(self, window: int) -> _Seen:
        (hits,) = self._nearest(self._query, limit=window, method="raw", with_payload=False)
        ids = [hit.id for hit in hits]
        scores = np.array([hit.score for hit in hits], dtype=np.float64)
        row = ids.index(self._item) if self._item in ids else None
        similarities = self._store.similarities(scores)
        return _Seen(ids, scores, similarities, self._statistics_of(ids), len(ids) < window, row)

    def _statistics_of(self, ids: list[ItemId]) -> ItemStatistics:
        items = ItemStatistics.unknown(len(ids))
        if self._statistics is not None and ids:
            there, stored = self._store.items(self._statistics.generation, ids, list(self._statistics.columns))
            rows = {item: row for row, item in enumerate(ids)}
            items.fill([rows[item] for item in there], stored)
        return items

    def _ranked(self, seen: _Seen) -> tuple[tuple[int, float] | None, bool, float]:
        """Rank and normalised similarity of the item among the candidates, whether they are certain, and the reach."""
        slack = _ROUNDING * (1 + abs(self._own))
        if seen.row is None:
            return None, False, min(self._own, float(seen.similarities.min(initial=np.inf))) - slack
        if self._statistics is None:
            return (seen.row + 1, float(seen.similarities[seen.row])), True, -np.inf
        rank, similarity = self._place(seen.similarities, seen.items, seen.row)
        best = rerank(
            seen.similarities,
            seen.items,
            self._statistics,
            limit=rank,
            method=self._method,
            complete=seen.complete,
        )
        return (rank, similarity), best.certified, best.reach

    def _place(self, similarities: Floats, items: ItemStatistics, row: int) -> tuple[int, float]:
        assert self._statistics is not None
        best = rerank(similarities, items, self._statistics, method=self._method)
        place = int(np.flatnonzero(best.order == row)[0])
        return place + 1, float(best.scores[place])

    def _explanation(
        self, seen: _Seen, ranked: tuple[int, float] | None, certain: bool, default: int
    ) -> ItemExplanation:
        own = self._own if seen.row is None else float(seen.similarities[seen.row])
        items = self._statistics_of([self._item]) if seen.row is None else seen.items[seen.row : seen.row + 1]
        normalized = own
        if ranked is not None:
            normalized = ranked[1]
        elif self._statistics is not None:  # scored among the candidates, which decide about similarities below 0
            together = ItemStatistics.joined([seen.items, items])
            normalized = self._place(np.append(seen.similarities, own), together, len(seen.ids))[1]
        gates = {name: bool(seen.items.activated(name)[0]) for name in self._method.banks if self._method.dynamic}
        terms = self._terms(form_of(self._method, gates), items)
        left = normalized - own - sum(term.change for term in terms)
        raw, score = self._store.scores(np.array([own, normalized])).tolist()
        return ItemExplanation(
            id=self._item,
            payload=dict(self._store.payloads([self._item]).get(self._item, {})),
            method=self._method,
            metric=self._metric,
            raw_score=raw if seen.row is None else float(seen.scores[seen.row]),
            raw_rank=None if seen.row is None else seen.row + 1,
            score=score,
            rank=None if ranked is None else ranked[0],
            certain=certain,
            similarity=own,
            normalized_similarity=normalized,
            terms=terms,
            gates=gates,
            nearest_id=seen.ids[0],
            logarithm=left if form_of(self._method, gates).logarithm else None,
            candidates=len(seen.ids),
            default_candidates=default,
        )

    def _terms(self, form: Form, items: ItemStatistics) -> list[Term]:
        if self._statistics is None:
            return []
        total = sum(self._statistics.columns[name].beta for name in form.columns)
        terms = []
        for name, adjustment in adjustments_of(self._statistics, items, form.columns).items():
            bias, weight = float(items.bias(name)[0]), adjustment.beta / total
            terms.append(
                Term(
                    name=name,
                    bias=None if np.isnan(bias) else bias,
                    mean=self._statistics.columns[name].bias.mean,
                    weight=weight,
                    change=-weight * float(adjustment.values[0]),
                )
            )
        return terms
