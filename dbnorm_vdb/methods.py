"""Normalised scores from similarities and biases: the one place that knows the formulas.

Everything is in the log domain and on the similarity scale. With `w_B = beta_B / sum(beta)` over the banks in use,
and the *adjustment* `c_B(g) = b_B(g) - mean(b_B)` of an item (0 for an item without statistics), the inverted
softmax over the banks ranks exactly like `s - sum_B w_B c_B`. An average item keeps its score.

Sources: QB-Norm (Bogolin et al., CVPR 2022, eq. 2 and 4) for `is` and `dis`; DBNorm (Wang et al., EMNLP 2023, eq. 4
to 9) for `dual_is` and `dual_dis`; NNN (Chowdhury et al., EMNLP 2024) and CSLS (Conneau et al., 2018) for `nnn`;
DBSN (Pan et al., ACM MM 2025) for `sinkhorn`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.errors import UnsupportedMethodError
from dbnorm_vdb.statistics import BANKS, BIAS_TOLERANCE, Booleans, CollectionStatistics, Floats, ItemStatistics

# log of the smallest positive float64, and a little less: below every log(s) of a positive s
_LOG_FLOOR = -745.5


class Method(str, Enum):
    """The ways to score.

    Attributes:
        banks: those that it needs: none, ("query",) or ("query", "gallery").
        columns: the biases that it subtracts: those against its banks, or one of its own.
        dynamic: whether each bank has a gate: it applies only to queries whose raw top-1 item is in its activation set.
    """

    banks: tuple[str, ...]
    columns: tuple[str, ...]
    dynamic: bool

    RAW = "raw"
    IS = "is", ("query",)
    DIS = "dis", ("query",), True
    DUAL_IS = "dual_is", BANKS
    DUAL_DIS = "dual_dis", BANKS, True
    NNN = "nnn", ("query",), False, ("nnn",)
    SINKHORN = "sinkhorn", ("query",), False, ("sinkhorn",)

    def __new__(
        cls, name: str, banks: tuple[str, ...] = (), dynamic: bool = False, columns: tuple[str, ...] | None = None
    ) -> Method:
        method = str.__new__(cls, name)
        method._value_ = name
        method.banks, method.columns, method.dynamic = banks, banks if columns is None else columns, dynamic
        return method

    @classmethod
    def parse(cls, name: str | Method) -> Method:
        """The method of that name, or UnsupportedMethodError that lists them."""
        if isinstance(name, Method):
            return name
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(method.value for method in cls)
            raise UnsupportedMethodError(f"unknown method {name!r}; use one of {known}") from None


class Form(NamedTuple):
    """How the items of one query are scored, once its gates are known.

    Attributes:
        columns: the biases that are subtracted, weighted by their inverse temperatures; none for raw scores.
        logarithm: whether `log(s) / beta` is added: `dual_dis` with exactly one gate open.
    """

    columns: tuple[str, ...]
    logarithm: bool = False


def form_of(method: Method, opened: Mapping[str, bool]) -> Form:
    """The form of a query's scores.

    Args:
        method: how to score.
        opened: of each bank, whether the query's raw top-1 item is in its activation set; read by dynamic methods
            only.
    """
    if not method.dynamic:
        return Form(method.columns)
    columns = tuple(name for name in method.columns if opened[name])
    return Form(columns, logarithm=0 < len(columns) < len(method.columns))


class Adjustment(NamedTuple):
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
        (q, n) float64, see `score_form`.
    """
    if not method.dynamic:
        return score_form(form_of(method, {}), similarities, adjustments)
    opened = np.stack([np.asarray(gates[name], dtype=np.bool_) for name in method.banks], axis=1)
    scores: Floats = np.empty_like(similarities)
    for state in np.unique(opened, axis=0):
        rows = (opened == state).all(axis=1)
        form = form_of(method, dict(zip(method.banks, state.tolist(), strict=True)))
        scores[rows] = score_form(form, similarities[rows], adjustments)
    return scores


def score_form(form: Form, similarities: Floats, adjustments: Mapping[str, Adjustment]) -> Floats:
    """Normalised similarities of `n` items for queries whose scores have that form.

    Args:
        form: how to score.
        similarities: (..., n) raw similarities, float64.
        adjustments: of each of `form.columns`.

    Returns:
        (..., n) float64. For `dual_dis` with exactly one gate open, bank B's, that is `s - c_B + log(s) / beta_B`;
        there the paper's product `s * exp(beta_B (s - b_B))` is not monotone for `s <= 0`, so those items rank
        after every positive one, by `s`; where none is positive (always so for Euclidean) it is `s`. With both
        gates closed it is `s`.
    """
    if form.logarithm:
        return _one_gate(similarities, adjustments[form.columns[0]])
    scores: Floats = np.array(similarities)
    for name, weight in _weights(form, {name: adjustments[name].beta for name in form.columns}).items():
        scores -= weight * adjustments[name].values
    return scores


def _weights(form: Form, betas: Mapping[str, float]) -> dict[str, float]:
    total = sum(betas[name] for name in form.columns)
    return {name: betas[name] / total for name in form.columns}


def one_gate_floor(beta: float, highest: float) -> float:
    """By how much `s <= 0` is lowered with one gate open, to rank after every positive one.

    Args:
        beta: inverse temperature of the open gate's bank.
        highest: the largest adjustment by it over the gallery.
    """
    return max(highest, 0.0) - _LOG_FLOOR / beta


def _one_gate(similarities: Floats, adjustment: Adjustment) -> Floats:
    positive = similarities > 0
    floor = np.where(positive.any(axis=-1, keepdims=True), one_gate_floor(adjustment.beta, adjustment.highest), 0)
    logarithms = np.log(similarities, out=np.zeros_like(similarities), where=positive)
    return np.where(
        positive,
        similarities - adjustment.values + logarithms / adjustment.beta,
        similarities - floor,
    )


def adjustments_of(
    statistics: CollectionStatistics, items: ItemStatistics, columns: Iterable[str] | None = None
) -> dict[str, Adjustment]:
    """The adjustments of `n` items by some biases of a collection's statistics, or by all."""
    fitted = statistics.columns
    adjustments: dict[str, Adjustment] = {}
    for name in fitted if columns is None else columns:
        beta, bias = fitted[name]
        values = items.bias(name) - bias.mean
        values[np.isnan(values)] = 0.0
        adjustments[name] = Adjustment(beta, values, bias.max - bias.mean)
    return adjustments


def score_items(form: Form, similarities: Floats, items: ItemStatistics, statistics: CollectionStatistics) -> Floats:
    """`score_form` of the items of one query by what is stored of them, (n,) all.

    An item's score does not depend on the others, to the last bit: it is the same in windows of any size.
    """
    terms = _terms(form, statistics)
    if form.logarithm and not np.minimum.reduce(similarities, initial=np.inf) > 0:
        positive = similarities > 0
        beta = statistics.columns[form.columns[0]].beta
        scores: Floats = similarities - (one_gate_floor(beta, terms.highest) if positive.any() else 0.0)
        scores[positive] = score_items(form, similarities[positive], items[positive], statistics)
        return scores
    plain = similarities
    if form.logarithm:
        plain = np.log(similarities)
        plain /= statistics.columns[form.columns[0]].beta
        plain += similarities
    scores = plain + terms.mean
    for name, weight in terms.weights:
        scores -= weight * items.bias(name)
    if math.isnan(np.minimum.reduce(scores, initial=np.inf)):
        incomplete = np.isnan(scores)
        scores[incomplete] = plain[incomplete]
        for name, weight in terms.weights:
            adjustments = weight * (items.bias(name)[incomplete] - statistics.columns[name].bias.mean)
            scores[incomplete] -= np.where(np.isnan(adjustments), 0.0, adjustments)
    return scores


class _Terms(NamedTuple):
    """What a form makes of a collection's statistics.

    Attributes:
        weights: what each bias is multiplied by before it is subtracted.
        mean: the mean of their sum over the gallery.
        highest: the most that their sum can be above that.
        lowest: see `lowest_adjustment`.
    """

    weights: tuple[tuple[str, float], ...]
    mean: float
    highest: float
    lowest: float


def _terms(form: Form, statistics: CollectionStatistics) -> _Terms:
    terms: _Terms | None = statistics.derived.get(form)
    if terms is None:
        weights = tuple(additive_weights(form, statistics).items())
        biases = [(weight, statistics.columns[name].bias) for name, weight in weights]
        mean = sum(weight * bias.mean for weight, bias in biases)
        highest = sum(weight * (bias.max - bias.mean) for weight, bias in biases)
        terms = _Terms(weights, mean, highest, _lowest_adjustment(form, statistics))
        statistics.derived[form] = terms
    return terms


# --- bounds ----------------------------------------------------------------------------------------------------------


def additive_weights(form: Form, statistics: CollectionStatistics) -> dict[str, float]:
    """What each bias of a form is multiplied by before it is subtracted; their sum is 1."""
    return _weights(form, {name: statistics.columns[name].beta for name in form.columns})


def lowest_adjustment(form: Form, statistics: CollectionStatistics) -> float:
    """The least that this form subtracts from an item's similarity, but for the logarithm: METHODS' `m`.

    Items without statistics have nothing subtracted, so it is at most 0. It allows for the precision in which biases
    are stored, and for the changes that a refresh considers too small to write.
    """
    return _terms(form, statistics).lowest


def _lowest_adjustment(form: Form, statistics: CollectionStatistics) -> float:
    if not form.columns:
        return 0.0
    columns = [statistics.columns[name] for name in form.columns]
    total = sum(beta for beta, _ in columns)
    lowest = sum(beta / total * (bias.min - bias.mean) for beta, bias in columns)
    if form.columns == BANKS and statistics.lowest_dual_adjustment is not None:
        lowest = max(lowest, statistics.lowest_dual_adjustment)  # both hold
    size = max(max(abs(bias.min), abs(bias.max)) for _, bias in columns)
    return min(lowest, 0.0) - 2 * BIAS_TOLERANCE * (1.0 + size)


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
        UnsupportedMethodError: unknown, or in need of a bias that was not fitted.
    """
    method = Method.parse(method)
    fitted = statistics.columns
    if not all(name in fitted for name in method.columns):
        supported = [known.value for known in Method if fitted.keys() >= {*known.columns}]
        raise UnsupportedMethodError(
            f"method {method.value!r} cannot be served by the stored statistics, which support"
            f" {', '.join(supported)}; fit with what it needs, or pick one of these"
        )
    return method


def order_by(
    scores: npt.NDArray[Any], similarities: npt.NDArray[Any], limit: int | None = None
) -> npt.NDArray[np.intp]:
    """Positions of the `limit` best by descending score; ties by raw similarity, then by the order given."""
    if limit is None or limit >= len(scores):
        return np.lexsort((-similarities, -scores))
    ascending = scores.copy()
    ascending.partition(len(scores) - limit)
    rows: npt.NDArray[np.intp] = (scores >= ascending[len(scores) - limit]).nonzero()[0]
    return rows[order_by(scores[rows], similarities[rows])][:limit]
