"""Log partitions and nearest items in blocks, on the backend that suits the work."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import as_array, check_vectors
from dbnorm_vdb.errors import (
    DimensionMismatchError,
    EmptyBankError,
    InvalidParameterError,
    InvalidVectorsError,
    MissingDependencyError,
)
from dbnorm_vdb.kernels.base import BankKernel, NearestItems, Reals
from dbnorm_vdb.kernels.numpy_kernel import NumpyKernel
from dbnorm_vdb.kernels.sinkhorn import SinkhornWeights, learn_weights
from dbnorm_vdb.parameters import check_beta

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "BankKernel",
    "NearestItems",
    "SinkhornWeights",
    "learn_weights",
    "log_partition",
    "make_kernel",
]

BACKENDS = ("auto", "numpy", "torch")
PRECISIONS = ("float32", "tf32", "bfloat16")

# Below this many multiplications, importing torch costs more than it saves.
_WORTH_TORCH = 1e11


def make_kernel(
    bank: Reals,
    betas: Sequence[float],
    *,
    log_weights: Reals | None = None,
    nearest_k: int = 0,
    backend: str = "auto",
    precision: str = "float32",
    expected_items: int = 0,
) -> BankKernel:
    """The kernel of `backend` for `bank`; "auto" takes torch where it is installed and the work is worth it.

    Raises:
        InvalidParameterError: no such backend.
        MissingDependencyError: "torch" is asked for and not installed.
    """
    if backend not in BACKENDS:
        raise InvalidParameterError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "auto":
        large = float(expected_items) * bank.size >= _WORTH_TORCH
        backend = "torch" if large and importlib.util.find_spec("torch") else "numpy"
    if backend == "numpy":
        return NumpyKernel(bank, betas, log_weights=log_weights, nearest_k=nearest_k)
    try:
        from dbnorm_vdb.kernels.torch_kernel import TorchKernel
    except ImportError as error:
        raise MissingDependencyError("torch", "torch", "the torch backend") from error
    return TorchKernel(bank, betas, log_weights=log_weights, nearest_k=nearest_k)


def log_partition(
    items: npt.ArrayLike,
    bank: npt.ArrayLike,
    beta: float | Sequence[float],
    *,
    log_weights: npt.ArrayLike | None = None,
    backend: str = "auto",
) -> npt.NDArray[np.float64]:
    """Log partition of each item against a bank: `log sum_b exp(beta * <b, g> + log_weights[b])`.

    The denominator of the inverted softmax (Bogolin et al., CVPR 2022, eq. 2; Wang et al., EMNLP 2023, eq. 4), in
    the log domain. The bias that a fit stores is `(log_partition - log(m)) / beta`.

    Args:
        items: (n, d) vectors. Similarity is the inner product: normalise both sides for cosine.
        bank: (m, d) vectors.
        beta: the inverse temperature, or k of them, which share the matrix product.
        log_weights: (m,) logarithms of bank weights; None weighs all alike.
        backend: "numpy", "torch" or "auto".

    Returns:
        (n,) float64 for one beta, (k, n) for a sequence of k. float64 inputs are computed in float64, any other
        type in float32 (sums always in float64).

    Raises:
        InvalidParameterError: a beta that is not > 0, or an unknown backend.
        InvalidVectorsError, EmptyBankError: arrays that do not fit together or hold unusable values.
    """
    several = np.ndim(beta) > 0
    betas = [check_beta(value) for value in np.atleast_1d(np.asarray(beta, dtype=object)).tolist()]
    if not betas:
        raise InvalidParameterError("beta is an empty sequence; give at least one inverse temperature")
    arrays = {what: as_array(values, what=what) for what, values in (("items", items), ("bank", bank))}
    double = all(array.dtype == np.float64 for array in arrays.values())
    item_array, bank_array = (_inner_product(array, what, double) for what, array in arrays.items())
    if not len(bank_array):
        raise EmptyBankError("bank: no vectors in it; give at least one")
    if item_array.shape[1] != bank_array.shape[1]:
        raise DimensionMismatchError(
            f"items have {item_array.shape[1]} dimensions, the bank has {bank_array.shape[1]}; they must be equal"
        )
    weights: Reals | None = None
    if log_weights is not None:
        weights = as_array(log_weights, what="log_weights").astype(bank_array.dtype)
        if weights.shape != (len(bank_array),) or not np.isfinite(weights).all():
            raise InvalidVectorsError(
                f"log_weights must be {len(bank_array)} finite numbers, one for each bank vector,"
                f" got shape {weights.shape}"
            )
    kernel = make_kernel(bank_array, betas, log_weights=weights, backend=backend, expected_items=len(item_array))
    result = kernel.scan(item_array)
    return result if several else result[0]


def _inner_product(vectors: npt.NDArray[Any], what: str, double: bool) -> Reals:
    """Check `vectors`; a zero vector is fine for an inner product."""
    checked = check_vectors(vectors, what=what, allow_zero=True)
    return np.ascontiguousarray(vectors) if double else checked
