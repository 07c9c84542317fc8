"""What query vectors have to be, as far as normalisation is concerned; the rest of the checking is the client's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.errors import NonFiniteVectorError, UnsupportedQueryError, ZeroVectorError
from dbnorm_vdb.parameters import length_of
from dbnorm_vdb.statistics import Metric


def check_lists(data: Any, metric: Metric) -> None:
    """`check_dense` of vectors that are needed no further; soon done where they are lists."""
    lengths = [length_of(vector) for vector in data] if type(data) is list else []
    if not lengths or not all(length is not None and 0 < length < math.inf for length in lengths):
        check_dense(data, metric)


def check_dense(data: Any, metric: Metric) -> npt.NDArray[Any] | None:
    """The (q, d) query vectors of a search as an array; None where the client will say what is wrong with them.

    Raises:
        UnsupportedQueryError: sparse or binary vectors, or text.
        NonFiniteVectorError, ZeroVectorError: they cannot be used.
    """
    if data is None:
        return None
    try:
        vectors = np.asarray(data)
    except ValueError:  # ragged
        return None
    if vectors.size and vectors.dtype.kind not in "fiu":
        raise UnsupportedQueryError("only dense float query vectors are normalised; use the client, or method='raw'")
    if not vectors.ndim:
        return None
    sizes = np.add.reduce(np.abs(vectors), axis=-1, dtype=np.float64).ravel().tolist()
    if not all(map(math.isfinite, sizes)):
        raise NonFiniteVectorError("the query vectors hold NaN or infinite values; re-embed the queries")
    if vectors.ndim != 2:
        return None
    if metric is Metric.COSINE and not all(sizes):
        raise ZeroVectorError(f"query vector {sizes.index(0)} is all zeros and has no direction; re-embed the query")
    return vectors
