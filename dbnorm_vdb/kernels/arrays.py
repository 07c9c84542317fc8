"""Names of the arrays that the kernels take and give."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Reals: TypeAlias = npt.NDArray[np.floating[Any]]
Floats: TypeAlias = npt.NDArray[np.float64]
Array: TypeAlias = Any  # a backend's own: an ndarray or a tensor
