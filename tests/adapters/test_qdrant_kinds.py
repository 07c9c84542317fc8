"""Every row of the table in docs/qdrant.md: what happens to each kind of query, and that errors name the way out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from congruence.qdrant_gallery import TEXT, WORDS, Gallery
from qdrant_client import QdrantClient, models

import dbnorm_vdb as db
from dbnorm_qdrant import QdrantAdapter, wrap

DOCS = Path(__file__).parents[2] / "docs" / "qdrant.md"


@pytest.fixture(scope="module")
def gallery() -> Iterator[Gallery]:
    client = QdrantClient(":memory:")
    yield Gallery.make(client, lambda name, vector: QdrantAdapter(client, name, vector), "dot", "image")
    client.close()


@pytest.fixture(scope="module")
def adapter(gallery: Gallery) -> QdrantAdapter:
    return QdrantAdapter(gallery.client, gallery.fitted, "image")


def _rows() -> dict[str, tuple[str, str]]:
    """Of each kind of query: what the adapter does, and the wrapped client."""
    lines = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {kind.replace("`", ""): (by_adapter, by_wrapped) for kind, by_adapter, by_wrapped, _ in cells}


ROWS = _rows()


def recommend(strategy: models.RecommendStrategy | None, *positive: Any) -> models.RecommendQuery:
    return models.RecommendQuery(recommend=models.RecommendInput(positive=[*positive], strategy=strategy))


def diverse(query: Any) -> models.NearestQuery:
    return models.NearestQuery(nearest=query, mmr=models.Mmr(diversity=0.5, candidates_limit=20))


class Asked:
    """Queries of a gallery, in the order of the documentation."""

    def __init__(self, gallery: Gallery) -> None:
        v: list[float] = gallery.world.queries[0].tolist()
        words = gallery.word_queries[0]
        pair = models.ContextPair(positive=4, negative=8)
        leg, other = models.Prefetch(query=v, using="image"), models.Prefetch(query=words, using=WORDS)
        rrf = models.FusionQuery(fusion=models.Fusion.RRF)
        text = {"query": gallery.text_queries[0].tolist(), "using": TEXT}
        best, total = models.RecommendStrategy.BEST_SCORE, models.RecommendStrategy.SUM_SCORES
        self.of: dict[str, list[dict[str, Any]]] = {
            "vector: list, tuple or numpy array": [{"query": v}, {"query": tuple(v)}, {"query": np.array(v)}],
            "point id: int, UUID or str": [{"query": 4}, {"query": gallery.ids[3]}],
            "NearestQuery": [{"query": models.NearestQuery(nearest=v)}],
            "NearestQuery with mmr": [{"query": diverse(v)}],
            "RecommendQuery, average vector": [{"query": recommend(None, 4, v)}],
            "RecommendQuery, best score or sum of scores": [{"query": recommend(s, 4, v)} for s in (best, total)],
            "DiscoverQuery": [{"query": models.DiscoverQuery(discover=models.DiscoverInput(target=v, context=[pair]))}],
            "ContextQuery": [{"query": models.ContextQuery(context=[pair])}],
            "multi-vector": [{"query": [v, v]}],
            "sparse vector, on the fitted vector": [{"query": words}],
            "another vector, dense or sparse": [text, {"query": words, "using": WORDS}],
            "OrderByQuery": [{"query": models.OrderByQuery(order_by="number")}],
            "SampleQuery": [{"query": models.SampleQuery(sample=models.Sample.RANDOM)}],
            "no query": [{}],
            "prefetch and FusionQuery (RRF, DBSF)": [
                {"prefetch": [leg, other], "query": models.FusionQuery(fusion=fusion)} for fusion in models.Fusion
            ],
            "prefetch and RrfQuery with weights": [
                {"prefetch": [leg, other], "query": models.RrfQuery(rrf=models.Rrf(weights=[2.0, 1.0]))}
            ],
            "prefetch and FormulaQuery": [{"prefetch": leg, "query": models.FormulaQuery(formula="$score")}],
            "prefetch and a query of the fitted vector": [{"prefetch": other, "query": v, "using": "image"}],
            "prefetch and a query of another vector": [{"prefetch": leg, **text}],
            "prefetch, no leg of the fitted vector": [{"prefetch": [other], "query": rrf}],
            "leg of a prefetch with mmr": [
                {"prefetch": models.Prefetch(query=diverse(v), using="image"), "query": rrf}
            ],
            "leg of a prefetch that would be refused alone": [
                {"prefetch": models.Prefetch(query=recommend(best, v), using="image"), "query": rrf},
                {"prefetch": models.Prefetch(query=[v, v], using="image"), "query": rrf},
            ],
            "groups of any of these": [
                {"group_by": "owner", "query": v},
                {"group_by": "owner", "prefetch": leg, "query": rrf},
            ],
            "groups with mmr": [{"group_by": "owner", "query": diverse(v)}],
        }


def search(target: Any, *collection: str, **arguments: Any) -> Any:
    return (target.query_points_groups if "group_by" in arguments else target.query_points)(*collection, **arguments)


def explicit(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments for a client, which has to be told the vector."""
    query = arguments.get("query")
    needless = (type(None), models.OrderByQuery, models.SampleQuery, models.FusionQuery, models.RrfQuery)
    named = "using" in arguments or isinstance(query, (*needless, models.FormulaQuery))
    return arguments if named else {**arguments, "using": "image"}


def test_the_table_and_these_tests_have_the_same_kinds(gallery: Gallery) -> None:
    assert list(Asked(gallery).of) == list(ROWS)
    assert {row for row, _ in ROWS.values()} == {"normalised", "refused", "legs normalised", "as above"}
    assert {wrapped for _, wrapped in ROWS.values()} == {"the same", "the client's"}


@pytest.mark.parametrize("kind", ROWS)
def test_adapters_do_what_the_table_says(gallery: Gallery, adapter: QdrantAdapter, kind: str) -> None:
    for arguments in Asked(gallery).of[kind]:
        if ROWS[kind][0] == "refused":
            with pytest.raises(_REFUSALS, match="method='raw'") as refused:
                search(adapter, **arguments)
            assert any(way in str(refused.value) for way in ("use the client", "make an adapter"))
        else:
            assert search(adapter, **arguments, method="is") != search(adapter, **arguments, method="raw")


@pytest.mark.parametrize("kind", ROWS)
def test_wrapped_clients_do_what_the_table_says(gallery: Gallery, adapter: QdrantAdapter, kind: str) -> None:
    wrapped = wrap(gallery.client)
    for arguments in map(explicit, Asked(gallery).of[kind]):
        if ROWS[kind][1] == "the client's":
            if kind != "SampleQuery":  # which is another one each time
                own = search(gallery.client, gallery.plain, **arguments)  # whose points are without our key
                assert search(wrapped, gallery.fitted, **arguments) == own
            else:
                assert search(wrapped, gallery.fitted, **arguments).points
            with pytest.raises(db.UnsupportedQueryError, match="leave the method out"):
                search(wrapped, gallery.fitted, **arguments, method="is")
        elif ROWS[kind][0] == "refused":
            with pytest.raises(_REFUSALS, match="method='raw'"):
                search(wrapped, gallery.fitted, **arguments)
        else:
            assert search(wrapped, gallery.fitted, **arguments) == search(adapter, **arguments)


@pytest.mark.parametrize("kind", [kind for kind, (row, _) in ROWS.items() if row == "refused"])
def test_raw_lets_pass_what_is_refused(gallery: Gallery, adapter: QdrantAdapter, kind: str) -> None:
    for arguments in map(explicit, Asked(gallery).of[kind]):
        if kind in ("multi-vector", "sparse vector, on the fitted vector", "SampleQuery") or _multi_leg(arguments):
            continue  # the engine refuses the first two for a dense vector itself; a sample is another one each time
        assert search(adapter, **arguments, method="raw") == search(gallery.client, gallery.plain, **arguments)


def _multi_leg(arguments: dict[str, Any]) -> bool:
    leg = arguments.get("prefetch")
    return isinstance(leg, models.Prefetch) and isinstance(leg.query, list) and isinstance(leg.query[0], list)


def test_explanations_of_a_fusion_are_refused_with_the_way_out(gallery: Gallery, adapter: QdrantAdapter) -> None:
    (arguments, _) = Asked(gallery).of["prefetch and FusionQuery (RRF, DBSF)"]
    with pytest.raises(db.UnsupportedQueryError, match="explain each leg"):
        adapter.query_points_explained(**arguments)


def test_batches_refuse_what_one_of_their_requests_is_refused_for(gallery: Gallery, adapter: QdrantAdapter) -> None:
    asked = Asked(gallery).of
    good, bad = asked["NearestQuery"][0], asked["DiscoverQuery"][0]
    with pytest.raises(db.UnsupportedQueryError, match="search for its target"):
        adapter.query_batch_points([models.QueryRequest(**good), models.QueryRequest(**bad)])


_REFUSALS = (db.UnsupportedQueryError, db.StatisticsMismatchError)
