"""Calls of a Milvus client, drawn from the product of all their arguments, and what an oracle says they return.

A call is data: it can be made of a client, a wrapped one or an adapter, and awaited where these are async.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from adapters.world import FIT, World, similarity
from harness import MILVUS_METRICS
from oracle import additive_scores, oracle_scores, ranking
from pymilvus import AnnSearchRequest, DataType, Function, FunctionType, MilvusClient, RRFRanker, WeightedRanker

from dbnorm_milvus.fusion import Ranking, fuse, fusion_of

N = 150
METHODS = ("is", "dis", "dual_is", "dual_dis")
ADDITIVE = METHODS[:3]
"""Whose scores are told for every row."""

WORDS = ("red", "green", "blue", "cat", "dog", "sun")
LATE = "late"


@dataclass(frozen=True)
class Call:
    """A call of a client's method on a collection."""

    name: str
    arguments: Mapping[str, Any]

    def of(self, client: Any, collection: str, **more: Any) -> Any:
        """Make it of a client; of an async one, to be awaited."""
        return getattr(client, self.name)(collection, **{**self.arguments, **more})

    def of_adapter(self, adapter: Any, **more: Any) -> Any:
        return getattr(adapter, self.name)(**{**self.arguments, **more})

    def __str__(self) -> str:
        shown = {name: value for name, value in self.arguments.items() if name not in ("data", "reqs")}
        return f"{self.name}({shown})"


@dataclass(frozen=True)
class Stock:
    """A collection of `N` rows with fields of every kind, and the world that its vectors are from.

    Attributes:
        rows: as they were inserted, but for vectors; `late` says in which partition.
    """

    name: str
    world: World
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def make(cls, client: MilvusClient, name: str, *, metric: str = "cosine") -> Stock:
        world = World.make(metric, n=N)
        stock = cls(name, world)
        _create(client, name, metric)
        rng = np.random.default_rng(5)
        for row in range(N):
            fields = {
                "key": 1000 - 3 * row,
                "owner": row * 7 % 23,
                "shelf": f"s{row % 4}",
                "price": round(float(rng.random()), 3),
                "note": f"note {row}",
                "tags": [row % 3, "x"],
                "grade": None if row % 6 == 0 else row % 5,
                "text": " ".join(rng.choice(WORDS, 4)),
            }
            stock.rows.append(fields)
        vectors = [{"vector": vector} for vector in world.items.tolist()]
        for row in range(N):
            others = rng.normal(size=6).tolist()
            vectors[row] |= {"other": others, "words": {int(at): float(rng.random()) for at in rng.integers(0, 20, 4)}}
        for late in (False, True):
            there = [{**stock.rows[row], **vectors[row]} for row in range(N) if late == (row % 5 == 0)]
            client.insert(name, there, **({"partition_name": LATE} if late else {}))
        return stock

    def left(self, call: Call) -> np.ndarray:
        """(N,) which rows the call's filter and partitions leave."""
        passes = FILTERS[call.arguments.get("filter") or ""]
        names = call.arguments.get("partition_names") or ["_default", LATE]
        return np.array(
            [passes(row) and ((LATE if at % 5 == 0 else "_default") in names) for at, row in enumerate(self.rows)]
        )

    def ranked(self, queries: Any, left: np.ndarray, method: str) -> list[list[tuple[dict[str, Any], float]]]:
        """For each query all rows that are left, best first, with their distances; NaN where only the order is told."""
        metric = self.world.metric
        raw = similarity(np.asarray(queries, dtype=np.float32), self.world.items, metric)
        raw[:, ~left] = -1e3  # for the gates, which the best of those that are left decides
        banks = self.world.banks()
        orders = oracle_scores(method, raw, **banks, **FIT)
        scores = additive_scores(method, raw, **banks, **FIT)
        sign = -1.0 if metric == "euclidean" else 1.0
        return [
            [(self.rows[at], sign * scores[row, at]) for at in ranking(orders[row], raw[row]) if left[at]]
            for row in range(len(raw))
        ]


def _create(client: MilvusClient, name: str, metric: str) -> None:
    schema, index = client.create_schema(auto_id=False, enable_dynamic_field=True), client.prepare_index_params()
    schema.add_field("key", DataType.INT64, is_primary=True)
    schema.add_field("owner", DataType.INT64)
    schema.add_field("shelf", DataType.VARCHAR, max_length=16)
    schema.add_field("price", DataType.DOUBLE)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=8)
    index.add_index("vector", index_type="FLAT", metric_type=MILVUS_METRICS[metric])
    schema.add_field("grade", DataType.INT64, nullable=True)
    schema.add_field("text", DataType.VARCHAR, max_length=64, enable_analyzer=True)
    schema.add_field("other", DataType.FLOAT_VECTOR, dim=6)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("matches", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, input_field_names=["text"], output_field_names=["matches"]))
    index.add_index("other", index_type="FLAT", metric_type="L2")
    index.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    index.add_index("matches", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
    client.create_partition(name, LATE)
    client.load_collection(name)


FILTERS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "": lambda row: True,
    "owner < 9": lambda row: row["owner"] < 9,
    'shelf in ["s1", "s2"] and price > 0.2': lambda row: row["shelf"] in ("s1", "s2") and row["price"] > 0.2,
    'note == "note 7"': lambda row: row["note"] == "note 7",
    "key > 5000": lambda row: False,
}
_FIELDS = (None, [], ["owner"], ["shelf", "note"], ["*"], ["$meta"], ["key", "vector"], ["tags", "price"], ["absent"])
_LEVELS = ("Strong", "Bounded", "Eventually", "Session", 2)


class Draw:
    """Arguments, each drawn by itself: left out, or one of its forms."""

    def __init__(self, stock: Stock, seed: int) -> None:
        self._stock = stock
        self._random = random.Random(seed)

    def _maybe(self, chance: float = 0.5) -> bool:
        return self._random.random() < chance

    def queries(self, count: int | None = None) -> Any:
        """One to three query vectors, as lists or arrays."""
        rows = self._random.sample(range(len(self._stock.world.queries)), count or self._random.choice((1, 1, 2, 3)))
        vectors = self._stock.world.queries[rows]
        return self._random.choice((vectors.tolist(), vectors, list(vectors)))

    def _common(self) -> dict[str, Any]:
        """What searches and iterators take alike."""
        chosen: dict[str, Any] = {}
        if self._maybe():
            chosen["filter"] = self._random.choice(list(FILTERS))
        if self._maybe(0.7):
            chosen["output_fields"] = self._random.choice(_FIELDS)
        if self._maybe(0.2):
            chosen["partition_names"] = self._random.choice(([LATE], ["_default"], [LATE, "_default"], []))
        if self._maybe():
            chosen["anns_field"] = "vector"
        if self._maybe(0.3):
            chosen["consistency_level"] = self._random.choice(_LEVELS)
        if self._maybe(0.3):
            chosen["round_decimal"] = self._random.choice((-1, 0, 2, 4))
        if self._maybe(0.2):
            chosen["timeout"] = 30
        return chosen

    def _search_params(self) -> dict[str, Any]:
        """In one layer or with some of it in another."""
        params: dict[str, Any] = {"metric_type": MILVUS_METRICS[self._stock.world.metric]} if self._maybe() else {}
        inner: dict[str, Any] = {"ef": 16} if self._maybe() else {}
        if self._maybe(0.4):
            far, near = (0.1, 0.55) if self._stock.world.metric != "euclidean" else (1.6, 0.6)
            inner["radius"] = far
            if self._maybe():
                inner["range_filter"] = near
        return {**params, **inner} if self._maybe() else {**params, "params": inner}

    def search(self) -> Call:
        chosen = {"data": self.queries(), "limit": self._random.choice((1, 4, 10, 40)), **self._common()}
        if self._maybe(0.7):
            chosen["search_params"] = self._search_params()
        if self._maybe(0.3):
            if self._maybe():
                chosen["offset"] = self._random.choice((0, 2, 5))
            else:
                chosen.setdefault("search_params", {})["offset"] = 3
        if self._maybe(0.3):
            chosen["group_by_field"] = self._random.choice(("owner", "shelf", "grade"))
            if self._maybe(0.6):
                chosen["group_size"] = self._random.choice((1, 2, 3))
            if self._maybe(0.3):
                chosen["strict_group_size"] = self._maybe()
        return Call("search", chosen)

    def _leg(self, field_name: str, count: int) -> AnnSearchRequest:
        data: Any = {
            "vector": self.queries(count),
            "other": [[self._random.gauss(0, 1) for _ in range(6)] for _ in range(count)],
            "words": [{at: self._random.random() for at in self._random.sample(range(20), 3)} for _ in range(count)],
            "matches": [" ".join(self._random.sample(WORDS, 2)) for _ in range(count)],
        }[field_name]
        metric = {**dict.fromkeys(("words",), "IP"), "other": "L2", "matches": "BM25"}
        params = {"metric_type": metric[field_name]} if field_name in metric and self._maybe() else {}
        expression = self._random.choice(list(FILTERS)) if self._maybe(0.4) else None
        return AnnSearchRequest(data, field_name, params, limit=self._random.choice((3, 8, 20)), expr=expression)

    def ranker(self, legs: int) -> Any:
        weights = [round(self._random.random(), 2) for _ in range(legs)]
        functions = (
            {"reranker": "rrf", "k": 7},
            {"reranker": "weighted", "weights": weights, "norm_score": True},
            {"reranker": "weighted", "weights": weights},
        )
        return self._random.choice(
            (
                None,
                RRFRanker(),
                RRFRanker(5),
                WeightedRanker(*weights),
                WeightedRanker(*weights, norm_score=False),
                *(Function("fusion", FunctionType.RERANK, input_field_names=[], params=each) for each in functions),
            )
        )

    def hybrid_search(self) -> Call:
        count = self._random.choice((1, 2, 3))
        others = self._random.choices(("vector", "other", "words", "matches"), k=self._random.choice((0, 1, 2)))
        names = ["vector", *others]
        self._random.shuffle(names)
        chosen: dict[str, Any] = {
            "reqs": [self._leg(name, count) for name in names],
            "ranker": self.ranker(len(names)),
            "limit": self._random.choice((1, 5, 12)),
        }
        if self._maybe(0.4):
            chosen["offset"] = self._random.choice((0, 2, 4))
        taken = ("output_fields", "partition_names", "consistency_level", "timeout")
        chosen |= {name: value for name, value in self._common().items() if name in taken}
        return Call("hybrid_search", chosen)

    def search_iterator(self) -> Call:
        chosen = {"data": self.queries(1), "batch_size": self._random.choice((7, 20, 60)), **self._common()}
        chosen["anns_field"] = "vector"  # the client wants it named where there are several
        if self._maybe(0.3):
            chosen["limit"] = self._random.choice((0, 5, 30))
        if self._maybe(0.5):
            chosen["search_params"] = {"metric_type": MILVUS_METRICS[self._stock.world.metric]}
        return Call("search_iterator", chosen)


def calls(stock: Stock, name: str, count: int, *, seed: int) -> Iterator[Call]:
    """`count` calls of that name, the same for every seed."""
    draw = Draw(stock, seed)
    for _ in range(count):
        yield getattr(draw, name)()


def picture(result: Any) -> Any:
    """All that a caller can see of a result."""
    return {
        "type": type(result).__name__,
        "attributes": sorted(vars(result)),
        "recalls": result.recalls and list(result.recalls),
        "extra": result.extra,
        "hits": [
            (type(hits).__name__, sorted(vars(hits)), list(hits.ids), list(hits.distances), [*map(dict, hits)])
            for hits in result
        ],
    }


def pages(iterator: Any) -> list[list[Any]]:
    """What an iterator brings, page by page, up to the first empty one."""
    found = []
    try:
        while page := iterator.next():
            found.append(list(page))
    finally:
        iterator.close()
    return found


def expected(stock: Stock, call: Call, method: str) -> list[list[tuple[Any, float]]]:
    """Keys and distances of a normalised search, worked out from all rows, one step after the other."""
    asked = call.arguments
    params = asked.get("search_params") or {}
    flat = {**params, **params.get("params", {})}
    sign = -1.0 if stock.world.metric == "euclidean" else 1.0
    offset, limit = asked.get("offset", params.get("offset", 0)), asked["limit"]
    found = []
    for whole in stock.ranked(asked["data"], stock.left(call), method):
        rows = [
            (row, distance)
            for row, distance in whole
            if not ("radius" in flat and sign * distance <= sign * flat["radius"])
            and not ("range_filter" in flat and sign * distance > sign * flat["range_filter"])
        ]
        if "group_by_field" in asked:
            size = asked.get("group_size", 1)
            groups: dict[Any, list[Any]] = {}
            for row, distance in rows:
                groups.setdefault(row[asked["group_by_field"]], []).append((row, distance))
            full = [group for group in groups.values() if not asked.get("strict_group_size") or len(group) >= size]
            rows = [hit for group in full[offset : offset + limit] for hit in group[:size]]
        else:
            rows = rows[offset : offset + limit]
        digits = asked.get("round_decimal", -1)
        found.append([(row["key"], distance if digits < 0 else round(distance, digits)) for row, distance in rows])
    return found


# --- hybrid searches ---------------------------------------------------------------------------------------------


def as_searches(call: Call) -> list[Call]:
    """The search that each request of a hybrid search stands for."""
    taken = {name: value for name, value in call.arguments.items() if name in ("output_fields", "partition_names")}
    return [
        Call(
            "search",
            {
                "data": request.data,
                "anns_field": request.anns_field,
                "search_params": request.param,
                "limit": request.limit,
                "filter": request.expr or "",
                **taken,
            },
        )
        for request in call.arguments["reqs"]
    ]


def fused(stock: Stock, call: Call, legs: Sequence[Any]) -> list[list[tuple[Any, float]]]:
    """The fusion of the legs' results, query by query."""
    metric = {"vector": MILVUS_METRICS[stock.world.metric], "other": "L2", "words": "IP", "matches": "BM25"}
    metrics = [metric[request.anns_field] for request in call.arguments["reqs"]]
    fusion, offset = fusion_of(call.arguments["ranker"]), call.arguments.get("offset", 0)
    found = []
    for of_query in zip(*legs, strict=True):
        rankings = [Ranking(hits.ids, hits.distances, kind) for hits, kind in zip(of_query, metrics, strict=True)]
        best = fuse(fusion, rankings)[offset : offset + call.arguments["limit"]]
        found.append([(rankings[one.leg].ids[one.row], one.score) for one in best])
    return found


class _Hits(NamedTuple):
    ids: list[Any]
    distances: list[float]


def expected_hybrid(client: Any, stock: Stock, call: Call, method: str) -> list[list[tuple[Any, float]]]:
    """Keys and scores of a hybrid search whose legs on the fitted field are the oracle's, the others the client's."""
    legs: list[Any] = []
    for search in as_searches(call):
        if search.arguments["anns_field"] == "vector":
            rankings = expected(stock, search, method)
            legs.append([_Hits([key for key, _ in hits], [score for _, score in hits]) for hits in rankings])
        else:
            legs.append(search.of(client, stock.name))
    return fused(stock, call, legs)
