"""Which setting to take, and what it is worth on queries that had no part in the choice.

Settings differ by less than a label set can tell, and the best of a hundred figures is too good to be true. So the
simplest method is taken whose best setting is within one standard error of the best of all (Breiman et al., 1984,
section 3.4.3), the error being that of the paired difference; and the figure that is promised comes from
cross-validation: chosen on some folds, measured on another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.statistics import Floats
from dbnorm_vdb.tuning.grid import Setting

Groups = npt.NDArray[np.int64]


def choose(settings: Sequence[Setting], figures: Floats, error: Callable[[int, int], float]) -> int:
    """The position of the setting to take.

    Args:
        settings: simplest method first.
        figures: (s,) of each; larger is better.
        error: the standard error of the difference between the figures of two.
    """
    best = int(figures.argmax())
    for method in dict.fromkeys(setting.method for setting in settings):
        rows = [row for row, setting in enumerate(settings) if setting.method is method]
        candidate = max(rows, key=lambda row: figures[row])
        if candidate == best or figures[best] - figures[candidate] <= error(best, candidate):
            return candidate
    raise AssertionError("unreachable: the best one's own method is among them")


def choose_labelled(settings: Sequence[Setting], values: Floats, groups: Groups) -> int:
    """`choose` by (s, q) values of the queries; queries of a group are one observation."""
    return choose(
        settings, values.mean(axis=1), lambda first, second: standard_error(values[first] - values[second], groups)
    )


def standard_error(values: Floats, groups: Groups) -> float:
    """Of the mean of (q,) values that may be correlated within groups; infinite for a single group."""
    _, numbers = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(numbers, values), np.bincount(numbers)
    count = len(sums)
    if count < 2:
        return np.inf
    deviations = sums - sizes * values.mean()
    return float(np.sqrt(count / (count - 1) * np.square(deviations).sum()) / len(values))


def cross_validated(
    settings: Sequence[Setting], values: Floats, groups: Groups, *, folds: int, seed: int
) -> tuple[npt.NDArray[np.int64], Groups]:
    """Choose without each fold in turn; a group of queries is in one fold.

    Returns:
        (folds,) the settings chosen, and (q,) the fold of each query.
    """
    _, numbers = np.unique(groups, return_inverse=True)
    count = int(numbers.max()) + 1
    fold_of = (np.random.default_rng(seed).permutation(count) % folds)[numbers]
    others = [fold_of != fold for fold in range(folds)]
    return np.array([choose_labelled(settings, values[:, kept], groups[kept]) for kept in others]), fold_of


def jackknife_error(of: Callable[[npt.NDArray[np.bool_]], float], count: int, *, blocks: int, seed: int) -> float:
    """The standard error of a figure of `count` queries that is no mean of theirs, by leaving out blocks of them.

    Args:
        of: the figure of the queries that a (count,) mask keeps.
        count: of the queries.
        blocks: into how many they are split.
        seed: of the split.
    """
    block_of = np.random.default_rng(seed).permutation(count) % blocks
    figures = np.array([of(block_of != block) for block in range(blocks)])
    return float(np.sqrt((blocks - 1) / blocks * np.square(figures - figures.mean()).sum()))
