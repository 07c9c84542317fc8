"""Which setting is taken, and whether what is promised of it is true."""

from __future__ import annotations

import numpy as np
import pytest

from dbnorm_vdb import Method
from dbnorm_vdb.tuning.grid import Setting
from dbnorm_vdb.tuning.selection import choose, choose_labelled, cross_validated, jackknife_error, standard_error

SETTINGS = [
    Setting(method=Method.RAW),
    *(Setting(method=Method.IS, query_beta=beta) for beta in (5.0, 10.0)),
    *(Setting(method=Method.DUAL_IS, query_beta=10.0, gallery_beta=beta) for beta in (1.0, 2.0, 5.0)),
]


@pytest.mark.parametrize(
    ("figures", "error", "taken"),
    [
        ([0.50, 0.60, 0.61, 0.60, 0.62, 0.55], 0.02, 2),  # is, at its own best beta
        ([0.50, 0.60, 0.61, 0.60, 0.62, 0.55], 0.001, 4),  # dual_is is better beyond chance
        ([0.61, 0.60, 0.61, 0.60, 0.62, 0.55], 0.02, 0),  # nothing is: raw
        ([0.62, 0.60, 0.61, 0.60, 0.61, 0.55], 0.0, 0),
    ],
)
def test_the_simplest_method_within_one_standard_error_of_the_best(
    figures: list[float], error: float, taken: int
) -> None:
    assert choose(SETTINGS, np.array(figures), lambda first, second: error) == taken


def test_a_standard_error_is_that_of_the_mean_and_counts_a_group_once() -> None:
    values = np.random.default_rng(0).normal(size=40)
    alone = standard_error(values, np.arange(40))
    assert alone == pytest.approx(values.std(ddof=1) / np.sqrt(40))
    fivefold = standard_error(np.repeat(values, 5), np.repeat(np.arange(40), 5))
    assert fivefold == pytest.approx(alone), "five copies of each query are no more evidence"
    assert standard_error(values, np.zeros(40, dtype=np.int64)) == np.inf


def test_queries_for_the_same_items_are_in_one_fold_and_every_fold_is_left_out() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 30, size=200)
    chosen, fold_of = cross_validated(SETTINGS, rng.random((6, 200)), groups, folds=5, seed=0)
    assert len(chosen) == 5
    assert all(len(set(fold_of[groups == group])) == 1 for group in set(groups))
    assert set(fold_of) == set(range(5))
    assert np.bincount([fold_of[groups == group][0] for group in set(groups)]).max() == 6


def test_a_fold_has_no_part_in_the_choice_that_it_is_measured_with() -> None:
    """The queries of one fold alone make one setting look best; the others, another."""
    groups = np.arange(100)
    _, fold_of = cross_validated(SETTINGS, np.zeros((6, 100)), groups, folds=5, seed=0)
    values = np.zeros((6, 100))
    values[1], values[5, fold_of == 2] = 0.1, 100.0
    chosen, _ = cross_validated(SETTINGS, values, groups, folds=5, seed=0)
    assert chosen[2] == 1
    assert choose_labelled(SETTINGS, values, groups) == 5


def test_what_is_promised_holds_on_new_queries_where_the_best_figure_does_not() -> None:
    """All settings are equally good: the best figure of many is luck, which cross-validation does not pass on."""
    many = [Setting(method=Method.IS, query_beta=float(beta)) for beta in range(1, 41)]
    settings = [Setting(method=Method.RAW), *many]
    groups, best, promised = np.arange(60), [], []
    for seed in range(60):
        values = np.random.default_rng(seed).normal(size=(41, 60))
        values[1:] += 1.0  # each gains 1 on average
        chosen, fold_of = cross_validated(settings, values, groups, folds=5, seed=seed)
        promised.append((values[chosen[fold_of], np.arange(60)] - values[0]).mean())
        best.append(values.mean(axis=1).max() - values[0].mean())
    error = np.std(promised) / np.sqrt(60)
    assert abs(np.mean(promised) - 1) < 3 * error
    assert np.mean(best) - 1 > 5 * error


def test_the_jackknife_error_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=200)
    error = jackknife_error(lambda kept: float(values[kept].mean()), 200, blocks=200, seed=0)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(200))
