"""The certificate: a result said to be certified is that of the whole gallery, whatever lies beyond the window.

Any certified result that differs from the whole gallery's is a failure.
"""

import math

import numpy as np
import pytest
from core.galleries import bank_statistics, collection_statistics, engine_order, fitted, galleries, items_with, take
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dbnorm_vdb import ItemStatistics, rerank
from dbnorm_vdb.bounds import bounds_beyond
from dbnorm_vdb.demo import load_pictures
from dbnorm_vdb.reranking import one_gate_reach
from dbnorm_vdb.searching import next_window

METHODS = ("raw", "is", "dis", "dual_is", "dual_dis")


def without(items, lacking):
    """Those items, some without statistics."""
    biases = (np.where(lacking, np.nan, items.query_bias), np.where(lacking, np.nan, items.gallery_bias))
    return ItemStatistics(*biases, items.query_activated & ~lacking, items.gallery_activated & ~lacking)


def check(similarities, items, statistics, *, window, limit, method):
    """Re-rank a window and the whole; (certified, what the window gave). Similarities in the engine's order."""
    rows = np.arange(len(similarities))
    seen = rerank(similarities[:window], take(items, rows[:window]), statistics, limit=limit, method=method)
    whole = rerank(similarities, items, statistics, limit=limit, method=method, complete=True)
    assert whole.certified
    assert whole.margin == math.inf
    assert seen.certified == (seen.margin >= 0)
    if seen.certified:
        assert seen.order.tolist() == whole.order.tolist()
        np.testing.assert_array_equal(seen.scores, whole.scores)
    return seen


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=300)
@given(problem=galleries(), data=st.data())
def test_a_certified_result_is_that_of_the_whole_gallery(method, problem, data):
    similarities, arguments = problem
    statistics, items = fitted(**arguments)
    n = len(items)
    lacking = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n), label="without statistics"))
    positions = engine_order(similarities[0])
    window = data.draw(st.integers(1, n), label="window")
    limit = data.draw(st.integers(1, window), label="limit")
    check(
        similarities[0, positions],
        take(without(items, lacking), positions),
        statistics,
        window=window,
        limit=limit,
        method=method,
    )


@pytest.mark.parametrize("gates", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=150)
@given(
    similarities=st.lists(st.floats(0.0625, 1, width=32), min_size=1, max_size=12),
    lowest=st.floats(-0.5, -1e-3),
    short=st.sampled_from([0.0, 1e-7, 1e-5, 1e-3, 0.02, 0.5]) | st.floats(0, 1),
    beyond=st.sampled_from([0.0, 1e-6, 0.1]),
    data=st.data(),
)
def test_an_item_just_beyond_the_window_with_the_lowest_bias_does_not_break_it(
    method, gates, similarities, lowest, short, beyond, data
):
    """Adversarial: candidates that score a little less, or no less, than the best that may lie beyond them."""
    values = np.sort(similarities)[::-1]
    beta = 20.0
    logarithm = 1 / beta if method == "dual_dis" and sum(gates) == 1 else 0.0
    heights = values + logarithm * np.log(values)
    target = heights[-1] - lowest * (1 - short)
    biases = np.append(np.maximum(heights - target, lowest), lowest)
    flags = [np.full(len(biases), gate) for gate in gates]
    items = ItemStatistics(biases, biases.copy(), *flags)
    bank = bank_statistics(np.array([lowest, -lowest, 0.0]), beta)
    statistics = collection_statistics(bank, bank).model_copy(update={"lowest_dual_adjustment": lowest})
    check(
        np.append(values, values[-1] - beyond),
        items,
        statistics,
        window=len(values),
        limit=data.draw(st.integers(1, len(values)), label="limit"),
        method=method,
    )


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=150)
@given(problem=galleries(), data=st.data())
def test_it_holds_for_items_that_came_after_the_fit(method, problem, data):
    """Some of the gallery is fitted; the others are written later, by writers that know of each other or not."""
    similarities, arguments = problem
    n = similarities.shape[1]
    assume(n > 1)
    later = data.draw(st.integers(1, n - 1), label="later")
    banks = {name: bank[:, : n - later] for name, bank in arguments.items() if name.endswith("bank")}
    statistics, _ = fitted(**{**arguments, **banks})
    _, items = fitted(**arguments)  # biases of an item do not depend on the other items
    informed = data.draw(st.booleans(), label="writers know of each other")
    known, found = statistics, []
    for row in range(n - later, n):
        bounds = bounds_beyond(known, take(items, [row]))
        if bounds is not None:
            found.append(bounds)
            known = known.widened([bounds]) if informed else known
    positions = engine_order(similarities[0])
    window = data.draw(st.integers(1, n), label="window")
    check(
        similarities[0, positions],
        take(items, positions),
        statistics.widened(found),
        window=window,
        limit=data.draw(st.integers(1, window), label="limit"),
        method=method,
    )


@pytest.fixture(scope="module", params=[(20.0, 10.0), (50.0, 20.0)], ids=str)
def pictures(request):
    """Similarities of the pictures' test texts as an engine would have them, and the statistics at some betas."""
    data = load_pictures()
    items, train = data.test.pictures, data.train
    banks = ((bank @ items.T).astype(np.float64) for bank in (train.texts[::4], train.pictures[::4]))
    return (data.test.texts[::6] @ items.T).astype(np.float64), *fitted(*banks, *request.param)


@pytest.mark.parametrize("method", METHODS)
def test_on_real_data_certified_results_are_exact_and_most_become_so(pictures, method):
    queries, statistics, items = pictures
    certified = dict.fromkeys((30, 200, 1000), 0)
    for similarities in queries:
        positions = engine_order(similarities)
        ordered = take(items, positions)
        for window in certified:
            seen = check(similarities[positions], ordered, statistics, window=window, limit=10, method=method)
            certified[window] += seen.certified
    assert certified[30] <= certified[200] <= certified[1000]
    assert certified[1000] > 0.95 * len(queries)
    assert method == "raw" or certified[30] < 0.9 * len(queries)


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=200)
@given(problem=galleries(), data=st.data())
def test_fetching_down_to_the_reach_certifies(method, problem, data):
    similarities, arguments = problem
    statistics, items = fitted(**arguments)
    positions = engine_order(similarities[0])
    values, items = similarities[0, positions], take(items, positions)
    window = data.draw(st.integers(1, len(items)), label="window")
    limit = data.draw(st.integers(1, window), label="limit")
    seen = rerank(values[:window], take(items, np.arange(window)), statistics, limit=limit, method=method)
    if seen.certified:
        assert seen.reach == values[:window].min()
        return
    assert seen.reach < values[window - 1]
    wider = int((values > seen.reach - 1e-7).sum())
    extended = rerank(
        np.append(values[:wider], seen.reach - 1e-7),  # the first item beyond, of an average bias
        ItemStatistics.joined([take(items, np.arange(wider)), ItemStatistics.unknown(1)]),
        statistics,
        limit=limit,
        method=method,
    )
    assert extended.certified


@settings(deadline=None, max_examples=500)
@given(wanted=st.floats(-1e6, 1e6) | st.floats(-2, 2), beta=st.floats(0.01, 1000))
def test_the_reach_behind_one_gate_is_never_too_high_and_hardly_too_low(wanted, beta):
    reach = one_gate_reach(wanted, beta)
    assert reach == 0 or reach + math.log(reach) / beta <= wanted
    if abs(wanted) <= 2:
        nearer = 1.001 * reach + 1e-300
        assert nearer + math.log(nearer) / beta > wanted


def test_too_few_candidates_are_certified_only_where_there_are_no_more():
    statistics, items = fitted(np.array([[0.1, 0.2, 0.3]]), np.array([[0.1, 0.2, 0.3]]))
    few = rerank([0.9, 0.8, 0.7], items, statistics, limit=4)
    assert (few.certified, few.margin, few.reach) == (False, -math.inf, -math.inf)
    all_there_is = rerank([0.9, 0.8, 0.7], items, statistics, limit=4, complete=True)
    assert (all_there_is.certified, all_there_is.margin) == (True, math.inf)
    none = rerank([], ItemStatistics.unknown(0), statistics, limit=4, complete=True)
    assert (none.certified, none.margin) == (True, math.inf)
    assert not rerank([], ItemStatistics.unknown(0), statistics, limit=4).certified


def test_raw_results_are_certified_and_so_are_those_behind_closed_gates():
    statistics, items = fitted(np.array([[0.1, 0.2, 0.3]]), np.array([[0.1, 0.2, 0.3]]))
    assert rerank([0.9, 0.8], take(items, [2, 0]), statistics, limit=1, method="raw").margin == pytest.approx(0.1)
    closed = without(items, np.array([True, True, True]))
    assert rerank([0.9, 0.8], take(closed, [0, 1]), statistics, limit=2, method="dual_dis").certified


def test_what_scores_too_much_is_left_out():
    statistics = collection_statistics(fitted(np.zeros((1, 4)), np.zeros((1, 4)))[0].query, method="is")
    items = items_with([0.0, 0.0, 0.0, 0.0])
    left = rerank([0.9, 0.8, 0.7, 0.6], items, statistics, limit=2, at_most=0.8)
    assert left.order.tolist() == [1, 2]
    assert left.certified
    assert not rerank([0.9, 0.8, 0.7, 0.6], items, statistics, limit=2, at_most=0.65).certified


# --- how far to go ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 300),
    reach=st.floats(-10, 10) | st.just(-math.inf),
    item_count=st.integers(0, 10_000),
    constant=st.booleans(),
)
def test_the_next_window_is_larger(seed, count, reach, item_count, constant):
    similarities = np.ones(count) if constant else np.sort(np.random.default_rng(seed).normal(size=count))[::-1]
    wider = next_window(similarities, min(reach, float(similarities[-1])), item_count)
    assert count < wider <= max(item_count + 1, 4 * count + 4)


@pytest.mark.parametrize("needed", [300, 1000, 5000])
def test_the_next_window_is_about_as_large_as_it_has_to_be(needed):
    """Where similarities are spread as they are in high dimensions: two requests, and little too much."""
    rng = np.random.default_rng(4)
    enough = []
    for _ in range(50):
        similarities = np.sort(0.2 + 0.05 * rng.normal(size=20_000))[::-1]
        wider = next_window(similarities[:100], float(similarities[needed]), 20_000)
        enough.append(wider / needed)
    assert np.mean([share >= 1 for share in enough]) > 0.6
    assert np.median(enough) < 2
