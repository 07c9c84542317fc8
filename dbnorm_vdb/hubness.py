"""Hubness measures: how unevenly the slots of the k-nearest lists are shared among the items.

Over `n` queries and `N` items, the k-occurrence `N_k(g)` is the number of k-nearest lists that contain item `g`
(Radovanovic et al., JMLR 2010). All measures are of the whole distribution, with the items that are in no list, and
their mean is `n k / N`, whatever the number of queries. Feldbauer et al. (ICBK 2018) review them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.parameters import check_count

Counts = npt.NDArray[np.int64]

EMPTY = -1
"""Fills the lists that are shorter than others."""


@dataclass(frozen=True)
class Hubness:
    """All hubness measures of one distribution of k-occurrences. Each is the larger, the more hubness there is.

    With `x` the (N,) k-occurrences, `m` their mean and `S` their sum, the number of filled slots:

    Attributes:
        k_skewness: `mean((x - m)^3) / mean((x - m)^2)^1.5`; 0 where all are equal, below 0 where a minority is found
            less often than the rest, and at most `(N - 2) / sqrt(N - 1)`.
        robin_hood: `sum |x - m| / (2 S)`, the Hoover index: the share of the slots that would have to be given to
            other items for all to have the same; 0 to 1.
        gini: `sum_ij |x_i - x_j| / (2 N S)`; 0 to 1.
        atkinson: `1 - mean(sqrt(x))^2 / m`, the Atkinson index with epsilon 0.5; 0 to 1.
        antihub_occurrence: the share of the items that are in no list; 0 to 1.
        hub_occurrence: the share of the slots that hubs take, a hub being an item with `x >= 2 m`; 0 to 1.
        groupie_ratio: the largest share of the slots that one item takes; `1 / N` to 1.
    """

    k_skewness: float
    robin_hood: float
    gini: float
    atkinson: float
    antihub_occurrence: float
    hub_occurrence: float
    groupie_ratio: float

    def as_dict(self) -> dict[str, float]:
        """The measures by name."""
        return asdict(self)


MEASURES: tuple[str, ...] = tuple(Hubness.__dataclass_fields__)
"""The names of all measures."""


def k_occurrence(neighbours: npt.ArrayLike, item_count: int) -> Counts:
    """How many of the k-nearest lists contain each item.

    Args:
        neighbours: (n, k) positions of items, 0 to `item_count - 1`, a row for each query; -1 fills a list that is
            shorter. Their order within a list does not matter.
        item_count: `N`, all items, found or not.

    Returns:
        (N,) counts, zeros included.

    Raises:
        InvalidParameterError: not an (n, k) array of integers, positions out of range, or one twice in a list.
    """
    check_count(item_count, what="item_count")
    lists = np.asarray(neighbours)
    if lists.ndim != 2 or lists.dtype.kind not in "iu":
        raise InvalidParameterError(
            f"neighbours must be an (n, k) array of integers, got {lists.dtype} of shape {lists.shape}"
        )
    ordered = np.sort(lists.astype(np.int64), axis=1)
    if ordered.size and not (ordered[:, 0].min() >= EMPTY and ordered[:, -1].max() < item_count):
        raise InvalidParameterError(
            f"neighbours must be positions from 0 to {item_count - 1}, or {EMPTY}, got {ordered[:, 0].min()} to"
            f" {ordered[:, -1].max()}"
        )
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != EMPTY)).any(axis=1)
    if twice.any():
        raise InvalidParameterError(f"neighbours: list {int(twice.argmax())} holds an item twice")
    return np.bincount(ordered[ordered != EMPTY], minlength=item_count)


def measure_hubness(occurrences: npt.ArrayLike, *, item_count: int | None = None) -> Hubness:
    """All hubness measures of a distribution of k-occurrences.

    Args:
        occurrences: (N,) how many lists contain each item, or just those of the items found at all.
        item_count: `N`, where `occurrences` leaves out items that were never found.

    Raises:
        InvalidParameterError: not whole numbers of at least 0, none above 0, or more than `item_count`.
    """
    found = np.asarray(occurrences)
    if found.ndim != 1 or found.dtype.kind not in "iu" or not found.size or found.min() < 0 or not found.any():
        raise InvalidParameterError(
            "occurrences must be a list of whole numbers of at least 0, one of them above, got"
            f" {found.dtype} of shape {found.shape}" + (f", sum {found.sum()}" if found.dtype.kind in "iu" else "")
        )
    total = len(found) if item_count is None else check_count(item_count, what="item_count")
    if total < len(found):
        raise InvalidParameterError(f"item_count={total} is less than the {len(found)} items that were counted")
    counts = np.concatenate([np.zeros(total - len(found)), np.sort(found).astype(np.float64)])
    slots = counts.sum()
    mean = slots / total
    deviations = counts - mean
    variance = np.mean(deviations**2)
    even = counts[0] == counts[-1]
    return Hubness(
        k_skewness=0.0 if even else float(np.mean(deviations**3) / variance**1.5),
        robin_hood=float(np.abs(deviations).sum() / (2 * slots)),
        gini=float((2 * np.arange(1, total + 1) - total - 1) @ counts / (total * slots)),
        atkinson=0.0 if even else float(1 - np.mean(np.sqrt(counts)) ** 2 / mean),
        antihub_occurrence=float(np.mean(counts == 0)),
        hub_occurrence=float(counts[is_hub(counts)].sum() / slots),
        groupie_ratio=float(counts[-1] / slots),
    )


def is_hub(occurrences: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """(N,) whether an item is in at least twice as many lists as the mean of all N."""
    counts = occurrences.astype(np.float64)  # products of counts may be beyond small integers
    hubs: npt.NDArray[np.bool_] = (counts > 0) & (counts * len(counts) >= 2 * counts.sum())
    return hubs


# --- what the measures are compared with -----------------------------------------------------------------------------


def chance_hubness(query_count: int, item_count: int, k: int) -> Hubness:
    """What is to be expected where there is no hubness: every list holds k items drawn by lot.

    Then `N_k` is binomial, `B(n, k / N)`, and even without hubs far from equal where there are few queries for the
    items. The measures are those of that distribution, the groupie ratio that of the largest of N such draws.

    Raises:
        InvalidParameterError: counts below 1, or k above `item_count`.
    """
    n, total, share = _checked(query_count, item_count, k)
    if share == 1:
        return Hubness(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1 / total)
    counts = np.arange(n + 1)
    steps = np.log((n - counts[:-1]) / counts[1:]) + math.log(share) - math.log1p(-share)
    density = np.exp(n * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(steps)]))
    below = np.minimum(np.cumsum(density), 1.0)
    mean = n * share
    reached = 1 - below[:-1] ** total  # the chances that some item is in 1, 2, ... n lists
    reached[: math.ceil(n * k / total)] = 1.0  # some item is in as many as the mean
    return Hubness(
        k_skewness=(1 - 2 * share) / math.sqrt(mean * (1 - share)),
        robin_hood=float(np.abs(counts - mean) @ density / (2 * mean)),
        gini=float(below @ (1 - below) / mean),
        atkinson=float(1 - (np.sqrt(counts) @ density) ** 2 / mean),
        antihub_occurrence=float(density[0]),
        hub_occurrence=float((counts * density)[counts * total >= 2 * n * k].sum() / mean),
        groupie_ratio=float(reached.sum() / (n * k)),
    )


def hubness_range(query_count: int, item_count: int, k: int) -> tuple[Hubness, Hubness]:
    """The least and the most that each measure can be.

    The most is reached where all lists are the same, the least where they overlap no more than they must. The
    k-skewness is farthest from 0, at `(N - 2) / sqrt(N - 1)` on either side, where all items but one are equal.

    Raises:
        InvalidParameterError: counts below 1, or k above `item_count`.
    """
    n, total, share = _checked(query_count, item_count, k)
    even, rest = divmod(n * k, total)
    least = measure_hubness(np.repeat([even, even + 1], [total - rest, rest]))
    skewness = (total - 2) / math.sqrt(total - 1) if total > 1 else 0.0
    others = 1 - share
    most = Hubness(skewness, others, others, others, others, float(2 * k <= total), 1 / k)
    return replace(least, k_skewness=-skewness), most


def _checked(query_count: int, item_count: int, k: int) -> tuple[int, int, float]:
    """n, N and k / N."""
    check_count(query_count, what="query_count")
    if check_count(k, what="k") > check_count(item_count, what="item_count"):
        raise InvalidParameterError(f"k={k} is more than the {item_count} items there are")
    return query_count, item_count, k / item_count
