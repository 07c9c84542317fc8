"""Measures of ranked grades, by hand; and the best columns of a window."""

from __future__ import annotations

import numpy as np
import pytest

from dbnorm_vdb import InvalidParameterError
from dbnorm_vdb.evaluation.candidates import best_columns
from dbnorm_vdb.evaluation.gains import Measure

GAINS = np.array([[0, 3, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
RELEVANT = np.array([[3, 2, 1], [1, 0, 0], [2, 1, 0]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("R@1", [0, 1, 0]),
        ("R@2", [1 / 3, 1, 0]),
        ("R@4", [2 / 3, 1, 0]),
        ("Success@1", [0, 1, 0]),
        ("Success@3", [1, 1, 0]),
        ("RR@1", [0, 1, 0]),
        ("RR@4", [1 / 2, 1, 0]),
        ("nDCG@1", [0, 1, 0]),
        ("nDCG@2", [(3 / np.log2(3)) / (3 + 2 / np.log2(3)), 1, 0]),
        ("nDCG@10", [(3 / np.log2(3) + 1 / np.log2(5)) / (3 + 2 / np.log2(3) + 1 / 2), 1, 0]),
    ],
)
def test_measures_by_hand(name: str, expected: list[float]) -> None:
    measure = Measure.parse(name)
    np.testing.assert_allclose(measure.of(GAINS, RELEVANT), expected)
    assert str(measure) == name


@pytest.mark.parametrize("name", ["nDCG", "nDCG@0", "AP@10", "ndcg@10", "R@1.5", "", None])
def test_what_is_no_measure_is_named(name: str) -> None:
    with pytest.raises(InvalidParameterError, match="unknown measure"):
        Measure.parse(name)


@pytest.mark.parametrize("count", [1, 4, 9, 30])
def test_best_columns_are_those_of_a_stable_sort(count: int) -> None:
    scores = np.random.default_rng(0).integers(0, 4, size=(50, 9)).astype(float)  # many ties
    scores[3] = -np.inf
    np.testing.assert_array_equal(best_columns(scores, count), np.argsort(-scores, axis=1, kind="stable")[:, :count])
