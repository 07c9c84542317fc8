"""The choice of a backend and of a precision."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from dbnorm_vdb.errors import InvalidParameterError, MissingDependencyError
from dbnorm_vdb.kernels.arrays import Reals
from dbnorm_vdb.kernels.base import BankKernel
from dbnorm_vdb.kernels.numpy_kernel import NumpyKernel

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
    largest_k: int = 0,
    backend: str = "auto",
    precision: str = "float32",
    expected_items: int = 0,
) -> BankKernel:
    """The kernel of `backend` for `bank`.

    Args:
        bank: (m, d) inner-product vectors, float32 or float64.
        betas: k inverse temperatures.
        log_weights: (m,) or (k, m), see `BankKernel`.
        nearest_k: how many nearest items of each bank vector to keep.
        largest_k: how many largest similarities of each item to average, see `BankKernel`.
        backend: "numpy", "torch", or "auto", which takes torch where it is installed and the work is worth it.
        precision: of the matrix product: "float32", or on torch "tf32" (which only CUDA knows) or "bfloat16". With
            "auto", one of these asks for torch. A float64 bank is computed in float64 and takes "float32" only.
        expected_items: about how many items will come.

    Raises:
        InvalidParameterError: no such backend or precision, or they do not go together.
        MissingDependencyError: torch is asked for and not installed.
    """
    for what, value, known in (("backend", backend, BACKENDS), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise InvalidParameterError(f"{what} must be one of {', '.join(known)}, got {value!r}")
    if precision != "float32" and bank.dtype != np.float32:
        raise InvalidParameterError(f"precision {precision!r} is for float32 vectors; the bank is {bank.dtype}")
    if precision != "float32" and backend == "numpy":
        raise InvalidParameterError(f"precision {precision!r} needs backend='torch'; numpy computes in float32")
    if backend == "auto":
        worth_it = float(expected_items) * bank.size >= _WORTH_TORCH and importlib.util.find_spec("torch")
        backend = "torch" if worth_it or precision != "float32" else "numpy"
    if backend == "numpy":
        return NumpyKernel(bank, betas, log_weights=log_weights, nearest_k=nearest_k, largest_k=largest_k)
    try:
        from dbnorm_vdb.kernels.torch_kernel import TorchKernel
    except ImportError as error:
        raise MissingDependencyError("torch", "torch", "the torch backend") from error
    return TorchKernel(
        bank, betas, log_weights=log_weights, nearest_k=nearest_k, largest_k=largest_k, precision=precision
    )
