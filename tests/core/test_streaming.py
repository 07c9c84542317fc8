"""Items that come in raw order, page by page, are passed on in the normalised order of the whole gallery."""

import itertools
import math

import numpy as np
import pytest
from core.galleries import bank_statistics, collection_statistics, engine_order, fitted, galleries, items_with, take
from hypothesis import given, settings
from hypothesis import strategies as st

from dbnorm_vdb import Method, rerank
from dbnorm_vdb.streaming import NormalizedStream

METHODS = ("raw", "is", "dis", "dual_is", "dual_dis")


def streamed(similarities, items, statistics, method, cuts):
    """What each page brings out; items are known by their positions."""
    stream = NormalizedStream(Method(method))
    edges = [0, *cuts, len(similarities)]
    for start, stop in itertools.pairwise(edges):
        yield stream.take(
            range(start, stop),
            similarities[start:stop],
            take(items, slice(start, stop)),
            statistics,
            complete=stop == len(similarities),
        )
        assert stream.waiting <= stop


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=100)
@given(problem=galleries(), data=st.data())
def test_however_the_pages_are_cut_the_order_is_that_of_the_whole(method, problem, data):
    (similarities,), arguments = problem
    statistics, items = fitted(**arguments)
    order = engine_order(similarities)
    similarities, items = similarities[order], take(items, order)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=4), label="cuts"))
    pages = list(streamed(similarities, items, statistics, method, cuts))
    whole = rerank(similarities, items, statistics, method=method, complete=True)
    passed = [scored for page in pages for scored in page]
    assert [hit for hit, _ in passed] == whole.order.tolist()
    np.testing.assert_array_equal([score for _, score in passed], whole.scores)


def test_items_are_passed_on_as_soon_as_nothing_can_come_before_them():
    """The lowest bias lies 0.1 below the mean: so much may an item yet to come gain."""
    biases = np.array([0.2, 0.0, 0.1])
    statistics = collection_statistics(bank_statistics(biases, 20.0), method="is", item_count=9)
    stream = NormalizedStream(Method.IS)
    similarities, own = np.array([0.9, 0.85, 0.8]), np.array([0.2, 0.1, 0.1])  # scores 0.8, 0.85, 0.8
    assert stream.take("abc", similarities, items_with(own), statistics, complete=False) == []
    assert (stream.waiting, stream.beyond) == (3, pytest.approx(0.9, abs=1e-5))
    page = stream.take("d", np.array([0.745]), items_with([0.1]), statistics, complete=False)
    assert [scored.hit for scored in page] == ["b"]
    assert stream.waiting == 3
    last = stream.take("e", np.array([0.74]), items_with([0.0]), statistics, complete=True)
    assert [scored.hit for scored in last] == ["e", "a", "c", "d"]
    assert [scored.score for scored in last] == pytest.approx([0.84, 0.8, 0.8, 0.745])
    assert (stream.waiting, stream.beyond) == (0, -math.inf)


def test_nothing_comes_of_nothing():
    statistics = collection_statistics(bank_statistics(np.zeros(1), 20.0), method="is")
    stream = NormalizedStream(Method.IS)
    for complete in (False, True):
        assert stream.take([], np.empty(0), items_with([]), statistics, complete=complete) == []
