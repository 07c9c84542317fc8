"""Checks of the arrays that callers hand to the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import as_array, check_vectors
from dbnorm_vdb.errors import DimensionMismatchError, EmptyBankError, InvalidVectorsError
from dbnorm_vdb.kernels.arrays import Floats, Reals


def inner_product_vectors(items: npt.ArrayLike, bank: npt.ArrayLike) -> tuple[Reals, Reals]:
    """(n, d) items and (m, d) bank vectors, both float64 if both came so, both float32 otherwise.

    Raises:
        InvalidVectorsError, EmptyBankError: arrays that do not fit together or hold unusable values.
    """
    arrays = {what: as_array(values, what=what) for what, values in (("items", items), ("bank", bank))}
    double = all(array.dtype == np.float64 for array in arrays.values())
    item_array, bank_array = (_checked(array, what, double) for what, array in arrays.items())
    if not len(bank_array):
        raise EmptyBankError("bank: no vectors in it; give at least one")
    if item_array.shape[1] != bank_array.shape[1]:
        raise DimensionMismatchError(
            f"items have {item_array.shape[1]} dimensions, the bank has {bank_array.shape[1]}; they must be equal"
        )
    return item_array, bank_array


def bank_weights(values: npt.ArrayLike, bank_size: int, *, what: str, rows: int | None = None) -> Floats:
    """(m,) finite numbers in float64, or (rows, m).

    Raises:
        InvalidVectorsError: another shape, or NaN or infinite values.
    """
    weights: Floats = as_array(values, what=what).astype(np.float64)
    if weights.shape not in {(bank_size,), (rows, bank_size)} or not np.isfinite(weights).all():
        by_beta = "" if rows is None else f" (or {rows} rows of them, one for each beta)"
        raise InvalidVectorsError(
            f"{what} must be {bank_size} finite numbers, one for each bank vector{by_beta}, got shape {weights.shape}"
            f" with {int((~np.isfinite(weights)).sum())} values that are NaN or infinite"
        )
    return weights


def _checked(vectors: npt.NDArray[Any], what: str, double: bool) -> Reals:
    """Check `vectors`; a zero vector is fine for an inner product."""
    checked = check_vectors(vectors, what=what, allow_zero=True)
    return np.ascontiguousarray(vectors) if double else checked
