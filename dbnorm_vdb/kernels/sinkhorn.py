"""Bank weights of Sinkhorn normalisation, learned in streaming passes over a sample of items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.errors import InvalidVectorsError
from dbnorm_vdb.kernels.arrays import Floats
from dbnorm_vdb.kernels.backends import make_kernel
from dbnorm_vdb.kernels.inputs import bank_weights, inner_product_vectors
from dbnorm_vdb.parameters import check_beta, check_count


@dataclass(frozen=True)
class SinkhornWeights:
    """What each bank vector's vote counts.

    Attributes:
        log_weights: (m,) logarithms of the weights, whose mean is 1 (`logsumexp(log_weights) == log(m)`).
        changes: how far the bank weights moved in each step, on the similarity scale (`max |delta| / beta`). They
            shrink as the iteration converges.
    """

    log_weights: Floats
    changes: tuple[float, ...]


def learn_weights(
    bank: npt.ArrayLike,
    items: npt.ArrayLike,
    beta: float,
    *,
    offsets: npt.ArrayLike | None = None,
    iterations: int = 10,
    backend: str = "auto",
    report: Callable[[int, float], None] | None = None,
) -> SinkhornWeights:
    """Weights under which every bank vector accounts for as much of the items as any other.

    The bank form of Sinkhorn normalisation (Pan et al., ACM MM 2025): from `u = 0`, repeat the item step
    `v_j = -log sum_b exp(e_bj + u_b)` and the bank step `u_b = -log sum_j exp(e_bj + v_j)`, with exponents
    `e_bj = beta * <b, g_j> + offsets_b`. The bias of any item is then `(log_partition(items, bank, beta,
    log_weights=offsets + u) - log m) / beta`, which is the last item step.

    Args:
        bank: (m, d) vectors.
        items: (n, d) vectors, a sample of the gallery. Similarity is the inner product.
        beta: the inverse temperature.
        offsets: (m,) added to the exponents of each bank vector (so is Euclidean similarity expressed); None for none.
        iterations: item steps, with a bank step between each two: `iterations - 1` passes over the items. 1 leaves all
            weights equal, which is the inverted softmax.
        backend: "numpy", "torch" or "auto".
        report: called with the step (from 1) and its change after each pass.

    Returns:
        The weights, computed in float64 from vectors that are both float64, in float32 from others.

    Raises:
        InvalidParameterError: a beta that is not > 0, fewer than one iteration, or an unknown backend.
        InvalidVectorsError, EmptyBankError: arrays that do not fit together or hold unusable values.
    """
    check_beta(beta)
    check_count(iterations, what="iterations")
    item_array, bank_array = inner_product_vectors(items, bank)
    if not len(item_array):
        raise InvalidVectorsError("items: no vectors in it; weights are learned on at least one")
    m = len(bank_array)
    base = np.zeros(m) if offsets is None else bank_weights(offsets, m, what="offsets")
    passes = iterations - 1
    kernel = make_kernel(bank_array, [beta], backend=backend, expected_items=passes * len(item_array))
    log_weights = np.zeros(m)
    changes: list[float] = []
    for step in range(1, passes + 1):
        moved = log_weights - kernel.log_votes(item_array, base + log_weights)
        moved += np.log(m) - np.logaddexp.reduce(moved)
        changes.append(float(np.abs(moved - log_weights).max()) / beta)
        log_weights = moved
        if report is not None:
            report(step, changes[-1])
    return SinkhornWeights(log_weights, tuple(changes))
