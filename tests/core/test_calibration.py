"""The calibrated window: measured on queries held out of the bank, by brute force here."""

import numpy as np
import pytest
from adapters.world import World, similarity
from oracle import bias

from dbnorm_vdb import Bank, Method, Metric
from dbnorm_vdb.calibration import LARGEST_WINDOW, QUERIES
from dbnorm_vdb.fitting import FitSettings, GalleryFit
from dbnorm_vdb.statistics import Calibration

BETAS = {"query": 15.0, "gallery": 6.0}


def calibrated(items, banks, method, metric="cosine", page=64, **settings):
    fit = GalleryFit(
        metric=Metric(metric),
        banks={name: Bank(bank) for name, bank in banks.items()},
        settings=FitSettings(Method(method), BETAS["query"], BETAS["gallery"], backend="numpy", **settings),
        expected_items=len(items),
    )
    for start in range(0, len(items), page):
        rows = items[start : start + page]
        fit.page(list(range(start, start + len(rows))), rows)
    return fit.statistics(generation=1, vector="", dimension=items.shape[1], version="").calibration


def windows_by_force(items, banks, method, metric):
    """For each bank query, with its vote left out: the window that holds its top 10, and the one that certifies it."""
    bank = {name: similarity(rows, items, metric) for name, rows in banks.items()}
    total = sum(BETAS.values())
    exact, certified = [], []
    for row in range(len(banks["query"])):

        def bias_of(query_bank):
            biases = bias(query_bank, BETAS["query"])
            if method == "dual_is":
                biases = (BETAS["query"] * biases + BETAS["gallery"] * bias(bank["gallery"], BETAS["gallery"])) / total
            return biases

        everyone = bias_of(bank["query"])
        alone = bias_of(np.delete(bank["query"], row, axis=0))
        # without its vote the bank is a constant lighter for all items: that much is not the item's
        size = len(bank["query"])
        share = BETAS["query"] / total if method == "dual_is" else 1.0
        alone = alone + share * np.log((size - 1) / size) / BETAS["query"]
        raw = bank["query"][row]
        best = np.argsort(-(raw - alone), kind="stable")[:10]
        exact.append(int((raw >= raw[best].min()).sum()))
        reach = (raw - alone)[best[-1]] + everyone.mean() + (everyone.min() - everyone.mean())
        certified.append(int((raw > reach).sum()) + 1)
    return np.sort(exact), np.sort(certified)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("method", ["is", "dual_is"])
def test_it_is_what_brute_force_finds(method, metric):
    world = World.make(metric, n=300)
    rng = np.random.default_rng(7)
    banks = {
        "query": (world.query_bank[rng.integers(0, 12, 60)] + 0.2 * rng.normal(size=(60, 8))).astype(np.float32),
        "gallery": world.gallery_bank,
    }
    if method == "is":
        del banks["gallery"]
    found = calibrated(world.items, banks, method, metric)
    exact, certified = windows_by_force(world.items, banks, method, metric)
    assert found.query_count == 60
    assert found.candidates == exact[59]
    assert found.exact_share == 1.0
    assert found.certified_candidates == pytest.approx(max(certified[53], exact[59]), abs=1)  # the bound has a slack
    assert found.suffices


def test_it_does_not_depend_on_pages_and_survives_an_interruption():
    world = World.make(n=300)
    banks = {"query": world.query_bank, "gallery": world.gallery_bank}
    whole = calibrated(world.items, banks, "dual_is", page=300)
    assert calibrated(world.items, banks, "dual_is", page=7) == whole

    def half():
        return GalleryFit(
            metric=Metric.COSINE,
            banks={name: Bank(bank) for name, bank in banks.items()},
            settings=FitSettings(Method.DUAL_IS, BETAS["query"], BETAS["gallery"], backend="numpy"),
            expected_items=300,
        )

    first = half()
    first.page(list(range(150)), world.items[:150])
    second = half()
    second.restore(first.state())
    second.page(list(range(150, 300)), world.items[150:])
    assert second.statistics(generation=1, vector="", dimension=8, version="").calibration == whole


def test_more_queries_than_are_looked_at_are_sampled():
    rng = np.random.default_rng(3)
    banks = {"query": rng.normal(size=(QUERIES + 50, 6)).astype(np.float32)}
    assert calibrated(rng.normal(size=(80, 6)).astype(np.float32), banks, "is").query_count == QUERIES


def test_a_gallery_of_hubs_beyond_any_small_window_is_said_to_be_one():
    """Most items are as near to every query as can be, and hubs; the few others would win, further down."""
    rng = np.random.default_rng(4)
    centre = np.zeros(32)
    centre[0] = 1
    hubs = centre + 0.02 * rng.normal(size=(2 * LARGEST_WINDOW, 32))
    others = rng.normal(size=(50, 32)) / np.sqrt(32) + 0.2 * centre
    queries = centre + 0.5 * rng.normal(size=(40, 32)) / np.sqrt(32)
    items = np.concatenate([hubs, others]).astype(np.float32)
    found = calibrated(items, {"query": queries.astype(np.float32)}, "is")
    assert not found.suffices
    assert found.candidates == LARGEST_WINDOW
    assert found.exact_share < 0.99


@pytest.mark.parametrize(("method", "banks"), [("is", {"query": np.ones((1, 3), np.float32)})])
def test_there_is_none_without_a_bank_to_hold_out_of(method, banks):
    items = np.random.default_rng(5).normal(size=(20, 3)).astype(np.float32)
    assert calibrated(items, banks, method) is None


def test_a_gallery_smaller_than_the_limit():
    items = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)
    found = calibrated(items, {"query": items[:3]}, "is")
    assert found.candidates <= 4
    assert found.certified_candidates <= 5


def test_a_dynamic_method_is_calibrated_with_its_gates_open():
    world = World.make(n=200)
    banks = {"query": world.query_bank, "gallery": world.gallery_bank}
    assert calibrated(world.items, banks, "dual_dis") == calibrated(world.items, banks, "dual_is")


@pytest.mark.parametrize(("wanted", "window", "certified"), [(1, 40, 90), (10, 40, 90), (15, 60, 135), (100, 400, 900)])
def test_windows_grow_with_what_is_asked_for(wanted, window, certified):
    calibration = Calibration(
        limit=10, query_count=50, candidates=40, exact_share=0.99, certified_candidates=90, certified_share=0.9
    )
    assert calibration.window(wanted) == window
    assert calibration.window(wanted, certified=True) == certified
