"""Calls of a Qdrant client, drawn from a seed: every kind of query with every argument, in all forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from congruence.qdrant_gallery import OWNERS, TEXT, WORDS, Gallery, N
from qdrant_client import models

NORMALISED = ("list", "array", "point id", "nearest", "recommend", "mmr", "rrf", "dbsf", "formula", "re-scored")
RAW_ONLY = ("scores", "discover", "context", "order by", "no query", "sparse", "other vector")

THRESHOLDS = {"cosine": 0.2, "dot": 0.15, "euclidean": 1.2}


@dataclass(frozen=True)
class Call:
    """A call of `query_points`, or of `query_points_groups` where it has a `group_by`.

    Attributes:
        kind: of query.
        arguments: as the bare client takes them.
        implied: whether an adapter may be left to name the vector itself.
    """

    kind: str
    arguments: dict[str, Any]
    implied: bool = False

    @property
    def grouped(self) -> bool:
        return "group_by" in self.arguments

    @property
    def of_adapter(self) -> dict[str, Any]:
        """The arguments as an adapter takes them."""
        return {k: v for k, v in self.arguments.items() if not (self.implied and k == "using")}

    @property
    def request(self) -> models.QueryRequest:
        """The same as a request of a batch."""
        names = {"query_filter": "filter", "search_params": "params", "with_vectors": "with_vector"}
        a = {names.get(k, k): v for k, v in self.of_adapter.items() if k not in ("consistency", "timeout")}
        if isinstance(a.get("query"), np.ndarray):
            a["query"] = a["query"].tolist()
        return models.QueryRequest(**{"with_payload": True, **a})


class Calls:
    """Draws calls for a gallery."""

    def __init__(self, gallery: Gallery, seed: int) -> None:
        self.gallery = gallery
        self.rng = np.random.default_rng(seed)

    def draw(self, kind: str, *, grouped: bool = False) -> Call:
        """A call with that kind of query and random arguments."""
        query, using, prefetch = self._query(kind)
        arguments: dict[str, Any] = {"query": query, "using": using, "limit": int(self.rng.integers(1, 26))}
        optional: dict[str, Any] = {
            "query_filter": self._filter(),
            "search_params": self._one([models.SearchParams(exact=True), models.SearchParams(hnsw_ef=64)]),
            "with_payload": self._payload(),
            "with_vectors": self._one([True, *([[self.gallery.vector]] if self.gallery.vector else [])]),
            "consistency": self._one([1, models.ReadConsistencyType.ALL]),
            "timeout": 5,
        }
        if kind not in ("order by", "context", "no query", "rrf", "formula"):
            optional["score_threshold"] = THRESHOLDS[self.gallery.world.metric]
        if not grouped:
            optional["offset"] = int(self.rng.integers(0, 9))
        arguments |= {name: value for name, value in optional.items() if self.rng.random() < 0.35}
        if prefetch is not None:
            arguments["prefetch"] = prefetch
        if grouped:
            sizes = {"limit": int(self.rng.integers(1, 8)), "group_size": int(self.rng.integers(1, 5))}
            arguments |= {"group_by": "owner", **sizes}
        ours = using == self.gallery.using and using is not None and query is not None
        return Call(kind, arguments, implied=ours and kind in NORMALISED and bool(self.rng.random() < 0.5))

    # --- queries -----------------------------------------------------------------------------------------------

    def _query(self, kind: str) -> tuple[Any, str | None, Any]:
        """The query, what it uses, and its prefetch."""
        ours = self.gallery.using
        if kind in ("rrf", "dbsf", "formula"):
            legs = [self._leg(), self._sparse_leg()]
            return self._combination(kind), None, legs if self.rng.random() < 0.7 else legs[0]
        if kind == "re-scored":
            return self._vector(), ours, [self._sparse_leg(), self._leg()] if self.rng.random() < 0.5 else self._leg()
        if kind == "sparse":
            return self._words(), WORDS, None
        if kind == "other vector":
            return self._one(list(self.gallery.text_queries)).tolist(), TEXT, None
        if kind == "order by":
            return models.OrderByQuery(order_by="number"), None, None
        if kind == "no query":
            return None, None, None
        return self._alone(kind), ours, None

    def _alone(self, kind: str) -> Any:
        """A query of the fitted vector."""
        if kind == "list":
            return self._vector()
        if kind == "array":
            return np.array(self._vector(), dtype=self._one([np.float32, np.float64]))
        if kind == "point id":
            return self._id()
        if kind == "nearest":
            return models.NearestQuery(nearest=self._example())
        if kind == "mmr":
            mmr = models.Mmr(diversity=self._one([None, 0.2, 0.7]), candidates_limit=self._one([None, 12, 40]))
            return models.NearestQuery(nearest=self._example(), mmr=mmr)
        if kind in ("recommend", "scores"):
            strategy = models.RecommendStrategy.BEST_SCORE if kind == "scores" else None
            positive, negative = [self._example(), self._example()], [self._example()] * int(self.rng.random() < 0.5)
            recommend = models.RecommendInput(positive=positive, negative=negative, strategy=strategy)
            return models.RecommendQuery(recommend=recommend)
        pair = models.ContextPair(positive=self._example(), negative=self._example())
        if kind == "discover":
            return models.DiscoverQuery(discover=models.DiscoverInput(target=self._example(), context=[pair]))
        assert kind == "context", kind
        return models.ContextQuery(context=[pair])

    def _combination(self, kind: str) -> Any:
        if kind == "rrf":  # weights for which no two points tie where a result ends
            return models.RrfQuery(rrf=models.Rrf(k=5))
        if kind == "dbsf":
            return models.FusionQuery(fusion=models.Fusion.DBSF)
        total = models.SumExpression(sum=["$score", models.MultExpression(mult=[0.01, "number"])])
        return models.FormulaQuery(formula=total, defaults={"$score": 0.0})

    def _leg(self) -> models.Prefetch:
        query = self._example() if self.rng.random() < 0.7 else self._alone("recommend")
        options = {"filter": self._filter(in_leg=True)} if self.rng.random() < 0.3 else {}
        return models.Prefetch(query=query, using=self.gallery.using, limit=int(self.rng.integers(5, 31)), **options)

    def _sparse_leg(self) -> models.Prefetch:
        return models.Prefetch(query=self._words(), using=WORDS, limit=int(self.rng.integers(5, 31)))

    def _vector(self) -> list[float]:
        vector: list[float] = self._one(list(self.gallery.world.queries)).tolist()
        return vector

    def _words(self) -> models.SparseVector:
        words: models.SparseVector = self._one(self.gallery.word_queries)
        return words

    def _id(self) -> Any:
        return self._one(self.gallery.ids)

    def _example(self) -> Any:
        return self._vector() if self.rng.random() < 0.6 else self._id()

    # --- arguments ---------------------------------------------------------------------------------------------

    def _filter(self, *, in_leg: bool = False) -> models.Filter:
        """A filter; without `should` in a leg, since local mode takes those of several levels for one list."""
        low = int(self.rng.integers(0, 30))
        numbers = models.FieldCondition(key="number", range=models.Range(gte=low, lt=low + N // 2))
        owners = [f"o{owner}" for owner in self.rng.choice(OWNERS, size=4, replace=False).tolist()]
        some = models.FieldCondition(key="owner", match=models.MatchAny(any=owners))
        filters = [models.Filter(must=[numbers]), models.Filter(should=[numbers, some]), models.Filter(must_not=[some])]
        chosen: models.Filter = self._one([one for one in filters if not (in_leg and one.should)])
        return chosen

    def _payload(self) -> Any:
        return self._one(
            [
                True,
                False,
                ["number"],
                ["nested.title", "owner"],
                [],
                models.PayloadSelectorInclude(include=["nested"]),
                models.PayloadSelectorExclude(exclude=["number", "nested.tags"]),
                models.PayloadSelectorExclude(exclude=[]),
            ]
        )

    def _one(self, choices: list[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]
