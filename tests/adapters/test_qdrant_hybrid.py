"""Legs of a prefetch, normalised: the result is that of normalising each leg by hand and then fusing by the book.

On local mode and on the real engine, which get the same requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from adapters.real_engine import RealEngine
from adapters.world import METRICS
from congruence.qdrant_gallery import TEXT, WORDS, Gallery, N
from congruence.qdrant_oracle import Oracle, assert_same_ranking
from qdrant_client import QdrantClient, models

from dbnorm_qdrant import QdrantAdapter

METHODS = ("is", "dis", "dual_is", "dual_dis")


@pytest.fixture(scope="module", params=METRICS)
def gallery(request: pytest.FixtureRequest) -> Iterator[Gallery]:
    client = QdrantClient(":memory:")
    yield Gallery.make(client, lambda name, vector: QdrantAdapter(client, name, vector), request.param, "image")
    client.close()


@pytest.fixture(scope="module")
def adapters(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, QdrantAdapter]]:
    real: Any = RealEngine(gallery.client, gallery.fitted, tmp_path_factory.mktemp("shard"))
    yield {
        "local": QdrantAdapter(gallery.client, gallery.fitted, "image"),
        "real": QdrantAdapter(real, gallery.fitted, "image"),
    }
    real.close()


def below(number: int) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="number", range=models.Range(lt=number))])


def either(*ends: int) -> models.Filter:
    return models.Filter(should=[models.FieldCondition(key="number", range=models.Range(lt=end)) for end in ends])


RRF, DBSF = models.FusionQuery(fusion=models.Fusion.RRF), models.FusionQuery(fusion=models.Fusion.DBSF)
WEIGHTED = models.RrfQuery(rrf=models.Rrf(k=5, weights=[3.1, 0.97]))  # so that no two points tie where a leg is cut
FORMULA = models.FormulaQuery(
    formula=models.SumExpression(sum=["$score", models.MultExpression(mult=[-0.4, "$score[1]"]), "number"]),
    defaults={"$score": 0.3, "$score[1]": 0.7},
)
THRESHOLDS = {"cosine": 0.25, "dot": 0.2, "euclidean": 1.05}


class Legs:
    """Prefetches of one gallery, by the number of a query."""

    def __init__(self, gallery: Gallery, number: int) -> None:
        self.gallery = gallery
        self.image: list[float] = gallery.world.queries[number].tolist()
        self.other: list[float] = gallery.world.queries[number + 8].tolist()
        self.words, self.text = gallery.word_queries[number], gallery.text_queries[number].tolist()

    def ours(self, query: Any = None, limit: int | None = 20, **options: Any) -> models.Prefetch:
        return models.Prefetch(query=self.image if query is None else query, using="image", limit=limit, **options)

    def sparse(self, limit: int | None = 20, **options: Any) -> models.Prefetch:
        return models.Prefetch(query=self.words, using=WORDS, limit=limit, **options)

    def dense(self, limit: int | None = 20, **options: Any) -> models.Prefetch:
        return models.Prefetch(query=self.text, using=TEXT, limit=limit, **options)

    @property
    def threshold(self) -> float:
        return THRESHOLDS[self.gallery.world.metric]


def recommended(positive: list[Any], negative: list[Any]) -> models.RecommendQuery:
    return models.RecommendQuery(recommend=models.RecommendInput(positive=positive, negative=negative))


CASES: dict[str, Callable[[Legs], dict[str, Any]]] = {
    "rank fusion": lambda on: {"prefetch": [on.ours(), on.sparse()], "query": RRF},
    "weighted rank fusion": lambda on: {"prefetch": [on.ours(), on.sparse()], "query": WEIGHTED},
    "score fusion": lambda on: {"prefetch": [on.ours(), on.sparse()], "query": DBSF},
    "score fusion of three": lambda on: {"prefetch": [on.dense(), on.ours(), on.ours(on.other)], "query": DBSF},
    "one leg": lambda on: {"prefetch": on.ours(), "query": RRF},
    "default limits": lambda on: {"prefetch": [on.ours(limit=None), on.sparse(limit=None)], "query": DBSF},
    "a page": lambda on: {"prefetch": [on.ours(), on.sparse()], "query": DBSF, "offset": 4, "limit": 7},
    "threshold of the whole": lambda on: {
        "prefetch": [on.ours(), on.sparse()],
        "query": DBSF,
        "score_threshold": 0.62,
    },
    "threshold of a leg": lambda on: {
        "prefetch": [on.ours(limit=60, score_threshold=on.threshold), on.sparse()],
        "query": RRF,
        "limit": N,
    },
    "filter of a leg": lambda on: {"prefetch": [on.ours(filter=below(30)), on.sparse()], "query": DBSF},
    "filter of the whole": lambda on: {"prefetch": [on.ours(), on.sparse()], "query": DBSF, "query_filter": below(40)},
    "filters at all levels": lambda on: {
        "prefetch": [
            models.Prefetch(
                prefetch=[on.ours(filter=either(20, 55)), on.sparse()], query=DBSF, filter=below(70), limit=12
            ),
            on.dense(),
        ],
        "query": RRF,
        "query_filter": below(60),
    },
    "a fusion in a fusion": lambda on: {
        "prefetch": [models.Prefetch(prefetch=[on.ours(), on.sparse()], query=WEIGHTED, limit=15), on.ours(on.other)],
        "query": DBSF,
    },
    "point ids": lambda on: {"prefetch": [on.ours(8), on.ours(on.gallery.ids[3])], "query": DBSF},
    "recommendation": lambda on: {
        "prefetch": [on.ours(recommended([8, on.image], [on.gallery.ids[11]])), on.sparse()],
        "query": DBSF,
    },
    "a formula": lambda on: {"prefetch": [on.sparse(), on.ours()], "query": FORMULA},
    "a formula, the other way round": lambda on: {"prefetch": [on.ours(), on.sparse()], "query": FORMULA},
    "a formula in a fusion": lambda on: {
        "prefetch": [models.Prefetch(prefetch=[on.ours(), on.ours(on.other)], query=FORMULA, limit=9), on.sparse()],
        "query": DBSF,
    },
    "re-scored by ours": lambda on: {"prefetch": [on.sparse(), on.dense()], "query": on.image, "using": "image"},
    "re-scored by ours, twice": lambda on: {
        "prefetch": on.ours(on.other, limit=40),
        "query": on.image,
        "using": "image",
        "offset": 2,
        "score_threshold": on.threshold,
    },
    "re-scored by ours in a leg": lambda on: {
        "prefetch": [on.ours(prefetch=[on.sparse(limit=30)], limit=10), on.dense()],
        "query": DBSF,
    },
    "re-scored by another": lambda on: {"prefetch": on.ours(limit=12), "query": on.text, "using": TEXT},
}


@pytest.mark.parametrize("case", CASES)
def test_it_equals_legs_normalised_by_hand(gallery: Gallery, adapters: dict[str, QdrantAdapter], case: str) -> None:
    compared = 0
    for number, method in enumerate(METHODS):
        arguments = CASES[case](Legs(gallery, number))
        oracle = Oracle(gallery, method)
        wanted, everything = oracle.ranking(**arguments), oracle.ranking(**{**arguments, "limit": N, "offset": 0})
        for adapter in adapters.values():
            found = adapter.query_points(**arguments, method=method, candidates=N + 1).points
            assert all(set(point.payload or {}) == {"number", "owner", "nested"} for point in found)
            if not oracle.unscored:  # of those only the order is promised, so what is made of their scores is not
                assert_same_ranking([(p.id, p.score) for p in found], wanted, everything, tolerance=1e-4)
                compared += bool(wanted)
    assert compared >= 4


def test_the_gates_of_a_leg_are_those_of_its_first_point_under_all_filters_above(
    gallery: Gallery, adapters: dict[str, QdrantAdapter]
) -> None:
    oracle, differing = Oracle(gallery, "dis"), 0
    few = models.Filter(must=[models.FieldCondition(key="owner", match=models.MatchAny(any=["o1", "o5"]))])
    for vector in gallery.world.queries.tolist():
        leg = models.Prefetch(query=vector, using="image", limit=N)
        alone = oracle.ranking(query=vector, using="image", query_filter=few, limit=N)
        above = models.Prefetch(prefetch=leg, query=models.FormulaQuery(formula="$score"), filter=few, limit=N)
        found = adapters["local"].query_points(
            prefetch=above, query=models.FormulaQuery(formula="$score"), limit=N, method="dis", candidates=N
        )
        scores = {point.id: abs(point.score) for point in found.points}
        assert scores == pytest.approx({item: abs(score) for item, score in alone}, abs=1e-4)
        unfiltered = dict(oracle.ranking(query=vector, using="image", limit=N))
        differing += any(abs(unfiltered[item] - score) > 1e-3 for item, score in alone)
    assert differing


def test_a_leg_without_a_positive_similarity_has_the_scores_of_the_same_search(
    gallery: Gallery, adapters: dict[str, QdrantAdapter]
) -> None:
    """`dual_dis` with one gate open lowers such points below the positive ones, of which there are none."""
    adapter, compared = adapters["local"], 0
    for vector in gallery.world.queries.tolist():
        raw = adapter.query_points(vector, limit=N, method="raw").points
        others = models.Filter(must=[models.HasIdCondition(has_id=[p.id for p in raw if p.score < 0])])
        alone = adapter.query_points(vector, query_filter=others, limit=N, method="dual_dis").points
        leg = models.Prefetch(query=vector, using="image", filter=others, limit=N)
        found = adapter.query_points(
            prefetch=leg, query=models.FormulaQuery(formula="$score"), limit=N, method="dual_dis"
        )
        expected = {point.id: point.score for point in alone}
        assert {point.id: point.score for point in found.points} == pytest.approx(expected, abs=1e-4)
        compared += len(alone)
    assert compared > N or gallery.world.metric == "euclidean"  # where no score is below zero
