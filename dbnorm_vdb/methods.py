"""Normalised scores from similarities and biases: the one place that knows the formulas.

Everything is in the log domain and on the similarity scale. With `w_B = beta_B / sum(beta)` over the banks in use,
and the *adjustment* `c_B(g) = b_B(g) - mean(b_B)` of an item (0 for an item without statistics), the inverted
softmax over the banks ranks exactly like `s - sum_B w_B c_B`. An average item keeps its score.

Sources: QB-Norm (Bogolin et al., CVPR 2022, eq. 2 and 4) for `is` and `dis`; DBNorm (Wang et al., EMNLP 2023, eq. 4
to 9) for `dual_is` and `dual_dis`; NNN (Chowdhury et al., EMNLP 2024) and CSLS (Conneau et al., 2018) for `nnn`;
DBSN (Pan et al., ACM MM 2025) for `sinkhorn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.errors import UnsupportedMethodError
from dbnorm_vdb.statistics import Booleans, CollectionStatistics, Floats, ItemStatistics

# log of the smallest positive float64, and a little less: below every log(s) of a positive s
_LOG_FLOOR = -745.5


class Method(str, Enum):
    """The ways to score. `dynamic` ones apply a bank only to queries whose raw top-1 item is in its activation set."""

    RAW = "raw"
    IS = "is"
    DIS = "dis"
    DUAL_IS = "dual_is"
    DUAL_DIS = "dual_dis"
    NNN = "nnn"
    SINKHORN = "sinkhorn"

    @classmethod
    def parse(cls, name: str | Method) -> Method:
        """The method of that name, or UnsupportedMethodError that lists them."""
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(method.value for method in cls)
            raise UnsupportedMethodError(f"unknown method {name!r}; use one of {known}") from None

    @property
    def banks(self) -> tuple[str, ...]:
        """The banks it needs: none, ("query",) or ("query", "gallery")."""
        if self is Method.RAW:
            return ()
        return ("query", "gallery") if self in (Method.DUAL_IS, Method.DUAL_DIS) else ("query",)

    @property
    def columns(self) -> tuple[str, ...]:
        """The biases it subtracts: those against its banks, or one of its own."""
        return (self.value,) if self in (Method.NNN, Method.SINKHORN) else self.banks

    @property
    def dynamic(self) -> bool:
        """Whether each bank has a gate that each query opens or not."""
        return self in (Method.DIS, Method.DUAL_DIS)


FITTED_METHODS = (Method.RAW, Method.IS, Method.DIS, Method.DUAL_IS, Method.DUAL_DIS, Method.NNN, Method.SINKHORN)
"""The methods that `fit` stores statistics for, and that searches can use."""


@dataclass(frozen=True)
class Adjustment:
    """What one bias does to `n` items.

    Attributes:
        beta: its inverse temperature.
        values: (n,) bias minus mean bias over the gallery; 0 for items without statistics.
        highest: the largest value over the gallery.
    """

    beta: float
    values: Floats
    highest: float


def score(
    method: Method,
    similarities: Floats,
    adjustments: Mapping[str, Adjustment],
    gates: Mapping[str, Booleans],
) -> Floats:
    """Normalised similarities of `n` items for `q` queries.

    Args:
        method: how to score.
        similarities: (q, n) raw similarities, float64.
        adjustments: of each of `method.columns`.
        gates: (q,) of each bank, whether the query's raw top-1 item is in its activation set; read by dynamic
            methods only.

    Returns:
        (q, n) float64. For `dual_dis` with exactly one gate open, bank B's, that is `s - c_B + log(s) / beta_B`;
        there the paper's product `s * exp(beta_B (s - b_B))` is not monotone for `s <= 0`, so those items rank
        after every positive one, by `s`; where none is positive (always so for Euclidean) it is `s`. With both
        gates closed it is `s`.
    """
    names = method.columns
    if not names:
        return np.array(similarities)
    total = sum(adjustments[name].beta for name in names)
    weights = {name: adjustments[name].beta / total for name in names}
    adjusted: Floats = np.sum([weights[name] * adjustments[name].values for name in names], axis=0)
    normalized: Floats = similarities - adjusted
    if not method.dynamic:
        return normalized
    opened = np.stack([np.asarray(gates[name], dtype=np.bool_) for name in names])
    scores: Floats = np.where(np.all(opened, axis=0)[:, None], normalized, similarities)
    for name, gate in zip(names, opened, strict=True):
        alone: Booleans = np.asarray(gate & (opened.sum(axis=0) == 1))
        if len(names) > 1 and alone.any():
            scores[alone] = _one_gate(similarities[alone], adjustments[name])
    return scores


def _one_gate(similarities: Floats, adjustment: Adjustment) -> Floats:
    positive = similarities > 0
    floor = np.where(
        positive.any(axis=1, keepdims=True), max(adjustment.highest, 0.0) - _LOG_FLOOR / adjustment.beta, 0
    )
    logarithms = np.log(similarities, out=np.zeros_like(similarities), where=positive)
    return np.where(
        positive,
        similarities - adjustment.values + logarithms / adjustment.beta,
        similarities - floor,
    )


def adjustments_of(statistics: CollectionStatistics, items: ItemStatistics) -> dict[str, Adjustment]:
    """The adjustments of `n` items by each bias of a collection's statistics."""
    return {
        name: Adjustment(
            column.beta,
            np.nan_to_num(items.bias(name) - column.bias.mean, nan=0.0),
            column.bias.max - column.bias.mean,
        )
        for name, column in statistics.columns.items()
    }


def adjustment_range(statistics: CollectionStatistics, method: Method) -> tuple[float, float]:
    """The least and the most that the method may subtract from an item's similarity, but for `dual_dis`' logarithm.

    Items without statistics have nothing subtracted, so the range includes 0.
    """
    columns = [statistics.columns[name] for name in method.columns]
    total = sum(beta for beta, _ in columns)
    weights = [1.0 if method.dynamic else beta / total for beta, _ in columns]  # each gate may be open alone
    least = sum(min(bias.min - bias.mean, 0.0) * w for (_, bias), w in zip(columns, weights, strict=True))
    most = sum(max(bias.max - bias.mean, 0.0) * w for (_, bias), w in zip(columns, weights, strict=True))
    return least, most


def check_supported(method: str | Method, statistics: CollectionStatistics) -> Method:
    """The method, if these statistics can serve it.

    Raises:
        UnsupportedMethodError: unknown, not fitted, or in need of a bias that was not fitted.
    """
    method = Method.parse(method)
    supported = [known for known in FITTED_METHODS if set(known.columns) <= set(statistics.columns)]
    if method not in supported:
        raise UnsupportedMethodError(
            f"method {method.value!r} cannot be served by the stored statistics, which support"
            f" {', '.join(known.value for known in supported)}; fit with what it needs, or pick one of these"
        )
    return method


def order_by(scores: npt.NDArray[Any], similarities: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Positions by descending score; ties by raw similarity, then by the order given."""
    return np.lexsort((-similarities, -scores))
