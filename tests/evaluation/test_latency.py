"""Times are taken arm against arm, query by query."""

import numpy as np
import pytest

from dbnorm_vdb.evaluation.arms import CallableSearch
from dbnorm_vdb.evaluation.latency import measure_latency, spread

QUERIES = np.arange(4, dtype=np.float32)[:, None]


class Watch:
    """A clock that searches wind on."""

    def __init__(self):
        self.seconds = 0.0
        self.calls = []

    def __call__(self):
        return self.seconds

    def search(self, name, seconds):
        def function(vectors):
            self.calls.append((name, int(vectors[0, 0])))
            self.seconds += seconds * (1 + int(vectors[0, 0]))
            return [[0]]

        return CallableSearch(name, function)


def test_arms_take_turns_and_each_goes_first_as_often():
    watch = Watch()
    arms = [watch.search("raw", 0.001), watch.search("is", 0.003)]
    found = measure_latency(arms, QUERIES, baseline="raw", limit=5, clock=watch)
    timed = watch.calls[-8:]
    assert timed == [("raw", 0), ("is", 0), ("is", 1), ("raw", 1), ("raw", 2), ("is", 2), ("is", 3), ("raw", 3)]
    assert {query for _, query in watch.calls[:-8]} == {0}, "warmed up with the first query"
    assert found["raw"].samples == pytest.approx([1, 2, 3, 4])
    assert found["is"].samples == pytest.approx([3, 6, 9, 12])
    assert found["is"].median == pytest.approx(7.5)
    assert found["is"].mean == pytest.approx(7.5)
    assert found["is"].p95 == pytest.approx(11.55)
    assert (found["raw"].ratio, found["is"].ratio) == (1, 3)


def test_without_a_timed_baseline_there_is_no_ratio():
    watch = Watch()
    found = measure_latency([watch.search("is", 0.003)], QUERIES, baseline="saved run", limit=5, clock=watch)
    assert found["is"].ratio is None


def test_queries_are_spread_over_all():
    assert spread(100, 5) == [0, 24, 49, 74, 99]
    assert spread(3, 5) == [0, 1, 2]
