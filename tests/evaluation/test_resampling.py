"""Intervals, tests and their correction, against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from dbnorm_vdb.evaluation.agreement import overlap, rank_biased_overlap
from dbnorm_vdb.evaluation.resampling import Sample, bootstrap_figures, holm, interval, permutation_p_values

RNG = np.random.default_rng(0)


def difference_of_means(x, y, axis):
    return x.mean(axis=axis) - y.mean(axis=axis)


@pytest.mark.parametrize("count", [9, 200], ids=["all exchanges", "random ones"])
def test_permutation_p_values_are_scipys(count):
    first = RNG.random((3, count)) + np.array([[0.0], [0.1], [0.4]])
    second = RNG.random(count)
    found = permutation_p_values([(Sample(row), Sample(second)) for row in first], resamples=5000, seed=0)
    for row, p_value in zip(first, found, strict=True):
        expected = stats.permutation_test(
            (row, second), difference_of_means, permutation_type="samples", vectorized=True, n_resamples=5000, rng=1
        ).pvalue
        assert p_value == pytest.approx(expected, abs=1e-12 if count == 9 else 0.03)


def test_medians_are_exchanged_as_medians():
    first, second = RNG.integers(1, 30, (2, 8)).astype(float)
    (found,) = permutation_p_values([(Sample(first, True), Sample(second, True))], resamples=5000, seed=0)
    expected = stats.permutation_test(
        (first, second),
        lambda x, y, axis: np.median(x, axis=axis) - np.median(y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    ).pvalue
    assert found == pytest.approx(expected)


def test_without_a_difference_p_values_are_uniform():
    values = RNG.random((400, 2, 40))
    found = [
        permutation_p_values([(Sample(one), Sample(other))], resamples=200, seed=seed)[0]
        for seed, (one, other) in enumerate(values)
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.001
    assert 0.02 < np.mean(np.array(found) <= 0.05) < 0.09


def test_what_was_seen_counts_so_that_no_p_value_of_random_exchanges_is_zero():
    values = RNG.random(60)
    assert permutation_p_values([(Sample(values + 1), Sample(values))], resamples=199, seed=0) == [1 / 200]


def test_equal_arms_are_never_different():
    values = RNG.random(50)
    assert permutation_p_values([(Sample(values), Sample(values.copy()))], resamples=100, seed=0) == [1.0]


def test_intervals_hold_the_truth_as_often_as_they_say():
    inside = 0
    for seed in range(300):
        sample = np.random.default_rng(seed).exponential(size=80)
        figures = bootstrap_figures([Sample(sample)], resamples=500, seed=seed)
        low, high = interval(figures[:, 0], 0.9)
        inside += low <= 1.0 <= high
    assert 0.84 < inside / 300 < 0.94


def test_arms_share_their_resamples():
    values = RNG.random(60)
    figures = bootstrap_figures([Sample(values), Sample(values + 1)], resamples=50, seed=3)
    assert figures[:, 1] - figures[:, 0] == pytest.approx(np.ones(50))
    again = bootstrap_figures([Sample(values), Sample(values + 1)], resamples=50, seed=3)
    assert np.array_equal(figures, again)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_rank_biased_overlap_by_hand():
    assert rank_biased_overlap(["a", "b"], ["a", "b"]) == pytest.approx(1)
    assert rank_biased_overlap(["a", "b"], ["c", "d"]) == 0
    # X_1 = 0, X_2 = 2 of two lists that are exchanged: (1-p)/p * p^2 + p^2 = p
    assert rank_biased_overlap(["a", "b"], ["b", "a"], p=0.8) == pytest.approx(0.8)
    # s = 1, l = 2, the short list's item first in both: 0.5/0.5 * (0.5 + 1/2 * 0.25 + 1/2 * 0.25) + (0/2 + 1) * 0.25
    assert rank_biased_overlap(["a"], ["a", "b"], p=0.5) == pytest.approx(1.0)
    assert rank_biased_overlap([], []) == 1
    assert rank_biased_overlap([], ["a"]) == 0


def test_overlap_counts_what_both_have_of_the_longer_list():
    assert overlap(["a", "b", "c"], ["c", "a", "x"], 3) == pytest.approx(2 / 3)
    assert overlap(["a", "b", "c"], ["x", "a", "b"], 1) == 0
    assert overlap(["a"], ["a", "b"], 10) == 0.5
