"""Measures by hand: graded, several relevant items, none found; and names that mean nothing."""

import sys

import numpy as np
import pytest

from dbnorm_vdb import InvalidParameterError, MissingDependencyError
from dbnorm_vdb.evaluation.measures import DEFAULT_MEASURES, parse_measures, recall_curve, values_by_query
from dbnorm_vdb.evaluation.rankings import Ranking

JUDGED = {"two": {"a": 2, "b": 1, "z": 0}, "one": {"c": 1}, "lost": {"d": 1}, "silent": {"a": 1}}
RUN = {
    "two": Ranking(["z", "b", "x", "a"]),
    "one": Ranking(["c", "a"], [0.5, 0.5]),
    "lost": Ranking(["a", "b"]),
}


def values(*names, depth=10):
    return values_by_query(parse_measures(names, depth), JUDGED, RUN, depth=depth)


def test_by_hand():
    found = values("R@2", "Success@2", "P@2", "RR", "AP", "nDCG@4", "MedianRank", "RR(rel=2)")
    gained = 1 / np.log2(3) + 2 / np.log2(5)
    best = 2 + 1 / np.log2(3)
    assert found["R@2"].tolist() == [0.5, 1, 0, 0]
    assert found["Success@2"].tolist() == [1, 1, 0, 0]
    assert found["P@2"].tolist() == [0.5, 0.5, 0, 0]
    assert found["RR"].tolist() == [0.5, 1, 0, 0]
    assert found["RR(rel=2)"].tolist() == [0.25, 0, 0, 0]
    assert found["AP"].tolist() == [(1 / 2 + 2 / 4) / 2, 1, 0, 0]
    assert found["nDCG@4"] == pytest.approx([gained / best, 1, 0, 0], abs=1e-6)
    assert found["MedianRank"].tolist() == [2, 1, 11, 11], "one more than the depth where nothing is found"


def test_the_order_of_the_arm_counts_and_not_its_scores():
    up = {"q": Ranking(["b", "a"], [0.1, 0.9])}  # distances
    found = values_by_query(parse_measures(["RR"], 10), {"q": {"b": 1}}, up, depth=10)
    assert found["RR"].tolist() == [1]


def test_the_recall_curve_is_recall_at_every_depth():
    curve = recall_curve(JUDGED, RUN, depth=5)
    each = [values(f"R@{k}")[f"R@{k}"].mean() for k in range(1, 6)]
    assert curve == pytest.approx(each)


def test_what_measures_say_of_themselves():
    infos = {measure.info.name: measure.info for measure in parse_measures(DEFAULT_MEASURES, 100)}
    assert list(infos) == list(DEFAULT_MEASURES)
    assert (infos["MedianRank"].statistic, infos["MeanRank"].statistic) == ("median", "mean")
    assert [name for name, info in infos.items() if not info.larger_is_better] == ["MedianRank", "MeanRank"]
    assert "101" in infos["MeanRank"].meaning
    assert "first 5" in infos["R@5"].meaning


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "must be a list of names"),
        ("R@1", "must be a list of names"),
        (["Hits@1"], "unknown measure 'Hits@1'; there are MedianRank, MeanRank, and those of ir-measures"),
        (["R"], "it needs cutoff"),
        (["R@0"], "cutoff must be at least 1"),
        (["R@2", "R(cutoff=2)"], "'R@2' is named twice"),
        (["nDCG@20"], "looks at 20 results, but there are 10"),
        (["AP(2)"], "options must be named"),
        (["NumRelRet"], "a count of all queries"),
        (["AP(rel=__import__('os'))"], "cannot be taken"),
        ([3], "unknown measure 3"),
    ],
)
def test_names_that_mean_nothing_are_refused(names, message):
    with pytest.raises(InvalidParameterError) as raised:
        parse_measures(names, 10)
    assert message in str(raised.value)


def test_ir_measures_is_needed_only_to_measure(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingDependencyError, match="evaluation"):
        parse_measures(["R@1"], 10)
    assert parse_measures(["MeanRank"], 10)[0].native is None
