"""The results of every setting are those of the formulas, evaluated one setting at a time on the full matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from adapters.world import METRICS, World
from arrays import ArrayCollection
from oracle import assert_same_order, bias, oracle_scores

from dbnorm_vdb import Bank, Method
from dbnorm_vdb.kernels import NearestItems
from dbnorm_vdb.tuning import TuneOptions, sweep
from dbnorm_vdb.tuning.grid import DEFAULT_METHODS
from dbnorm_vdb.tuning.sweep import BankSweep, activated_items
from dbnorm_vdb.tuning.trying import Tried, try_settings

BETAS = {"query": (2.0, 12.0, 90.0), "gallery": (0.0, 1.0, 30.0)}
ALL_METHODS = (*DEFAULT_METHODS, Method.SINKHORN)


def try_world(world: World, collection: ArrayCollection, *, candidates: int, **options: Any) -> Tried:
    banks = {"query": Bank.of(world.query_bank), "gallery": Bank.of(world.gallery_bank)}
    asked = TuneOptions(**{"methods": ALL_METHODS, "betas": BETAS, "candidates": candidates, "nnn_k": 3, **options})
    plan = asked.plan(banks, 5, collection.count(), collection)
    return try_settings(collection, collection.nearest, collection.info.metric, world.queries, banks, plan)


@pytest.mark.parametrize("metric", METRICS)
def test_every_setting_ranks_like_the_oracle(metric: str) -> None:
    world = World.make(metric)
    tried = try_world(world, ArrayCollection(world.items, metric), candidates=120, activation_k=2)
    assert {setting.method for setting in tried.settings} == set(ALL_METHODS)
    raw = world.raw()
    for row, setting in enumerate(tried.settings):
        oracle = oracle_scores(
            setting.method.value,
            raw,
            **world.banks(),
            query_beta=setting.query_beta or 0,
            gallery_beta=setting.gallery_beta or 0,
            activation_k=2,
            nnn_alpha=setting.nnn_alpha or 0,
            nnn_k=3,
        )
        found = np.take_along_axis(tried.windows.items, tried.columns[row], axis=1)
        for query, positions in enumerate(found):
            first = [tried.windows.ids[position] for position in positions]
            rest = [item for item in range(120) if item not in first]
            rest.sort(key=lambda item, scores=oracle[query]: -scores[item])  # type: ignore[misc]
            assert_same_order([*first, *rest], oracle[query], relative=1e-3 if metric == "euclidean" else 1e-4)


def test_a_gallery_beta_of_0_ranks_like_is() -> None:
    """What `make_grid` takes for granted, of the oracle: the factor of the gallery bank is then the same for all."""
    world = World.make()
    with_zero = oracle_scores("dual_is", world.raw(), **world.banks(), query_beta=12.0, gallery_beta=0.0)
    without = oracle_scores("is", world.raw(), **world.banks(), query_beta=12.0)
    np.testing.assert_array_equal(np.argsort(-with_zero, axis=1), np.argsort(-without, axis=1))


def test_one_product_with_each_bank_serves_all_betas(monkeypatch: pytest.MonkeyPatch) -> None:
    world, products = World.make(), []
    make_kernel = sweep.make_kernel

    def counted(*args: Any, **kwargs: Any) -> Any:
        kernel = make_kernel(*args, **kwargs)
        scan = kernel.scan
        kernel.scan = lambda items: products.append((len(args[0]), len(items))) or scan(items)
        return kernel

    monkeypatch.setattr(sweep, "make_kernel", counted)
    collection = ArrayCollection(world.items)
    tried = try_world(world, collection, candidates=30, methods=DEFAULT_METHODS)
    assert len(tried.settings) > 20
    assert products == [(12, len(tried.windows.ids)), (20, len(tried.windows.ids))]


def test_only_candidates_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World.make(n=400)
    collection = ArrayCollection(world.items)
    tried = try_world(world, collection, candidates=6, methods=["dual_is"])
    assert len(tried.windows.ids) < 100
    assert collection.fetched == len(tried.windows.ids)


def test_a_sweep_equals_a_pass_for_each_beta() -> None:
    world = World.make()
    both = BankSweep("query", Bank.of(world.query_bank), ArrayCollection(world.items).info.metric, BETAS["query"])
    together = both.of(world.items)
    for row, beta in enumerate(BETAS["query"]):
        np.testing.assert_allclose(together[row], bias(world.banks()["query_bank"], beta), atol=1e-6)


def test_gates_open_by_the_activation_set_of_the_whole_collection() -> None:
    """With few candidates an item may be nearest to a bank vector among these, and not among all."""
    world = World.make(n=300)
    tried = try_world(world, ArrayCollection(world.items), candidates=8, methods=["dis", "dual_dis"])
    raw = world.raw()
    for row, setting in enumerate(tried.settings):
        betas = {"query_beta": setting.query_beta or 0, "gallery_beta": setting.gallery_beta or 0}
        oracle = oracle_scores(setting.method.value, raw, **world.banks(), **betas)
        for query, columns in enumerate(tried.columns[row]):
            window = np.argsort(-raw[query], kind="stable")[:8].tolist()
            found = [window.index(tried.windows.ids[tried.windows.items[query, column]]) for column in columns]
            rest = [place for place in range(8) if place not in found]
            rest.sort(key=lambda place, scores=oracle[query, window]: -scores[place])  # type: ignore[misc]
            assert_same_order([*found, *rest], oracle[query, window], relative=1e-4)


def test_bank_vectors_are_asked_about_until_one_activates_an_item() -> None:
    """Five bank vectors are nearest to candidate 0, and one to candidate 1; the whole collection knows better."""
    nearest = NearestItems(
        similarity=np.array([[0.9], [0.8], [0.7], [0.6], [0.5], [0.4]]),
        position=np.array([[0], [0], [0], [0], [0], [1]]),
    )
    of_all = [{"other"}, {"other"}, {"a"}, {"a"}, {"a"}, {"other"}]
    asked: list[int] = []

    def ask(rows: Sequence[int]) -> list[set[Any]]:
        asked.extend(rows)
        return [of_all[row] for row in rows]

    assert activated_items([0, 1], nearest, ["a", "b"], ask) == {0}
    assert sorted(asked) == [0, 1, 2, 5], "1, then 2 more of them; none is asked about twice"
