"""Log partitions as a function of arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.kernels.backends import make_kernel
from dbnorm_vdb.kernels.inputs import bank_weights, inner_product_vectors
from dbnorm_vdb.parameters import check_beta


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
        log_weights: (m,) logarithms of bank weights, or (k, m) with a row for each beta; None weighs all alike.
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
    item_array, bank_array = inner_product_vectors(items, bank)
    weights = None
    if log_weights is not None:
        rows = len(betas) if several else None
        weights = bank_weights(log_weights, len(bank_array), what="log_weights", rows=rows)
    kernel = make_kernel(bank_array, betas, log_weights=weights, backend=backend, expected_items=len(item_array))
    result = kernel.scan(item_array)
    return result if several else result[0]
