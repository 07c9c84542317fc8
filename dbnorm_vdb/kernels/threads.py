"""Blocks of the numpy kernel side by side, in threads of ours in place of those of the BLAS library.

The library multiplies with all processors, and numpy does everything else with one. Blocks in threads use all of them
for both. And the library's threads, which wait in busy loops, do not take the time of a database on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

_GLOBAL = ("openblas", "mkl")  # whose number of threads is the same for every thread that calls
_NUMPY = str(Path(np.__file__).parent)  # in this folder, or in "numpy.libs" beside it


class Processors:
    """The processors that the BLAS library would multiply with, to be used otherwise.

    Needs threadpoolctl, and OpenBLAS or MKL; without, there is nothing to be done, and blocks follow one another.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._controller: Any = None
        self._limited: Any = None
        self._users = 0
        self._count = 1
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def taken_over(self) -> Iterator[tuple[int, ThreadPoolExecutor | None]]:
        """How many there are, and that many threads; the library keeps to one meanwhile.

        One and None where the library cannot be told, or was told by somebody else to keep to one.
        """
        with self._lock:
            if not self._users:
                self._take_over()
            self._users += 1
        try:
            yield self._count, self._pool
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._give_back()

    def _take_over(self) -> None:
        if self._controller is None:
            self._controller = _controller()
        libraries = self._controller.info() if self._controller else []
        self._count = max((library["num_threads"] for library in libraries), default=1)
        if self._count > 1:
            self._limited = self._controller.limit(limits=1)
            self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="dbnorm-kernel")

    def _give_back(self) -> None:
        pool, limited, self._pool, self._limited = self._pool, self._limited, None, None
        if limited is not None:
            limited.restore_original_limits()
        if pool is not None:
            pool.shutdown()


def _controller() -> Any:
    """What controls the library that numpy multiplies with; False if it cannot be controlled."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return False
    found = ThreadpoolController().select(user_api="blas")
    # others may have brought libraries of their own; where numpy's is shared, it may be any of them
    own = [one["filepath"] for one in found.info() if one["filepath"].startswith(_NUMPY)]
    if own:
        found = found.select(filepath=own)
    # with OpenMP below, a limit holds for the calling thread alone
    known = all(one["internal_api"] in _GLOBAL and one.get("threading_layer") != "openmp" for one in found.info())
    return found if known else False


PROCESSORS = Processors()
