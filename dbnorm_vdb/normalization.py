"""The textbook form: normalise similarity matrices that are in memory. For researchers, tuning and tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import as_array
from dbnorm_vdb.errors import EmptyBankError, InvalidVectorsError, UnsupportedMethodError
from dbnorm_vdb.methods import Adjustment, Method, score
from dbnorm_vdb.parameters import check_beta, check_count, check_finite
from dbnorm_vdb.statistics import Booleans, Floats

Matrix = npt.NDArray[np.floating[Any]]


def normalize(
    similarities: npt.ArrayLike,
    *,
    query_bank: npt.ArrayLike | None = None,
    gallery_bank: npt.ArrayLike | None = None,
    method: str | Method = "dual_is",
    query_beta: float = 20.0,
    gallery_beta: float = 10.0,
    activation_k: int = 1,
    iterations: int = 10,
    nnn_alpha: float = 0.5,
    nnn_k: int = 10,
) -> Matrix:
    """Normalised similarities of queries to a whole gallery.

    Args:
        similarities: (n_queries, n_items), larger is nearer.
        query_bank: (n_bank, n_items) similarities of query-bank vectors to the items; every method but `raw` needs
            it.
        gallery_bank: (m_bank, n_items) similarities of gallery-bank vectors to the items, for `dual_is` and
            `dual_dis`.
        method: `raw`, `is`, `dis`, `dual_is`, `dual_dis`, `nnn` or `sinkhorn`.
        query_beta: inverse temperature of the query bank.
        gallery_beta: inverse temperature of the gallery bank.
        activation_k: an item is in a bank's activation set if it is among the `activation_k` nearest of one of its
            vectors (ties by position).
        iterations: item steps of `sinkhorn`; 1 is `is`.
        nnn_alpha: weight of the bias of `nnn`; 0.5 is CSLS.
        nnn_k: the bias of `nnn` is the mean of this many largest similarities to the query bank (all, if fewer).

    Returns:
        (n_queries, n_items), float32 if `similarities` are float32, else float64; computed in float64, on the
        similarity scale: an item with the gallery's mean bias keeps its score (see `dbnorm_vdb.methods.score`).

    Raises:
        InvalidVectorsError: matrices that are not two-dimensional, do not fit together or hold non-finite values.
        EmptyBankError: a bank without rows.
        UnsupportedMethodError: an unknown method, or one whose bank is missing.
        InvalidParameterError: a beta that is not > 0, a count below 1, or an alpha that is not finite.

    Example:
        >>> import numpy as np
        >>> s = np.array([[0.9, 0.8], [0.7, 0.1]])  # item 0 is near every query: a hub
        >>> normalize(s, query_bank=s, method="is", query_beta=10).argmax(axis=1)
        array([1, 0])
    """
    chosen = Method.parse(method)
    matrix = _matrix(similarities, "similarities")
    dtype = np.float32 if np.asarray(similarities).dtype == np.float32 else np.float64
    betas = {
        "query": check_beta(query_beta, what="query_beta"),
        "gallery": check_beta(gallery_beta, what="gallery_beta"),
    }
    for name, count in (("activation_k", activation_k), ("iterations", iterations), ("nnn_k", nnn_k)):
        check_count(count, what=name)
    check_finite(nnn_alpha, what="nnn_alpha")
    given = {"query": query_bank, "gallery": gallery_bank}
    adjustments: dict[str, Adjustment] = {}
    gates: dict[str, Booleans] = {}
    for name in chosen.banks:
        bank = given[name]
        if bank is None:
            raise UnsupportedMethodError(f"method {chosen.value!r} needs a {name} bank; pass {name}_bank=...")
        bank_matrix = _bank_matrix(bank, f"{name}_bank", matrix.shape[1])
        if chosen is Method.NNN:
            bias = nnn_alpha * _mean_of_largest(bank_matrix, nnn_k)
        elif chosen is Method.SINKHORN and matrix.shape[1]:
            bias = _sinkhorn_bias(bank_matrix, betas[name], iterations)
        else:
            bias = (log_sum_exp(bank_matrix * betas[name], axis=0) - np.log(len(bank_matrix))) / betas[name]
        centred = bias - bias.mean() if bias.size else bias
        column = chosen.columns[chosen.banks.index(name)]
        adjustments[column] = Adjustment(betas[name], centred, float(centred.max(initial=0.0)))
        if chosen.dynamic and matrix.size:
            gates[name] = activation_set(bank_matrix, activation_k)[matrix.argmax(axis=1)]
    if not matrix.size:
        return matrix.astype(dtype)
    return score(chosen, matrix, adjustments, gates).astype(dtype)


def activation_set(bank_similarities: Matrix, k: int = 1) -> Booleans:
    """(n_items,) whether an item is among the `k` nearest of at least one bank vector; ties by position.

    Args:
        bank_similarities: (m, n_items) similarities of bank vectors to the items.
        k: how many nearest items each bank vector activates.
    """
    members = np.zeros(bank_similarities.shape[1], dtype=np.bool_)
    for row in bank_similarities:
        members[np.argsort(-row, kind="stable")[:k] if k > 1 else row.argmax()] = True
    return members


def log_sum_exp(exponents: Floats, *, axis: int) -> Floats:
    """`log(sum(exp(exponents)))` along an axis, shifted by the largest exponent of each sum."""
    shift = exponents.max(axis=axis, keepdims=True)
    sums: Floats = np.log(np.exp(exponents - shift).sum(axis=axis))
    sums += shift.squeeze(axis)
    return sums


def _sinkhorn_bias(bank: Floats, beta: float, iterations: int) -> Floats:
    """Bias of each item after `iterations` item steps, up to a constant that centring removes."""
    exponents = bank * beta
    potentials: Floats = log_sum_exp(exponents, axis=0)
    for _ in range(iterations - 1):
        bank_weights = -log_sum_exp(exponents - potentials, axis=1)
        potentials = log_sum_exp(exponents + bank_weights[:, None], axis=0)
    biases: Floats = potentials / beta
    return biases


def _mean_of_largest(bank: Floats, k: int) -> Floats:
    k = min(k, len(bank))
    largest: Floats = np.partition(bank, len(bank) - k, axis=0)[len(bank) - k :]
    mean: Floats = largest.mean(axis=0)
    return mean


def _matrix(values: npt.ArrayLike, what: str) -> Floats:
    matrix = as_array(values, what=what).astype(np.float64)
    if matrix.ndim != 2:
        raise InvalidVectorsError(f"{what}: expected a two-dimensional array, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise InvalidVectorsError(f"{what}: {int((~np.isfinite(matrix)).sum())} values are NaN or infinite")
    return matrix


def _bank_matrix(values: npt.ArrayLike, what: str, n_items: int) -> Floats:
    matrix = _matrix(values, what)
    if not len(matrix):
        raise EmptyBankError(f"{what}: no vectors in it (shape {matrix.shape}); give at least one")
    if matrix.shape[1] != n_items:
        raise InvalidVectorsError(f"{what}: {matrix.shape[1]} columns, the similarities have {n_items} items")
    return matrix
