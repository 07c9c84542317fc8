"""What ranked lists are worth: retrieval measures of the grades in them, of many queries at once, with numpy alone.

Tuning takes hundreds of such lists of every query, and a fit with a validation needs no package beyond numpy. The
measures are those of `trec_eval` and ir-measures under the same names: `R` recall, `Success`, `RR` reciprocal rank,
`nDCG` with linear gains (Järvelin and Kekäläinen, 2002).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.errors import InvalidParameterError

Floats = npt.NDArray[np.float64]
Grades = npt.NDArray[np.int64]

KINDS = ("R", "Success", "RR", "nDCG")


class Measure(NamedTuple):
    """A measure of the first `cutoff` results."""

    kind: str
    cutoff: int

    @classmethod
    def parse(cls, name: str) -> Measure:
        """The measure of a name such as "nDCG@10".

        Raises:
            InvalidParameterError: there is no such measure here.
        """
        found = re.fullmatch(rf"({'|'.join(KINDS)})@([1-9][0-9]{{0,5}})", name) if isinstance(name, str) else None
        if found is None:
            raise InvalidParameterError(
                f"unknown measure {name!r}; there are {', '.join(KINDS)}, each with a cutoff, as in nDCG@10"
            )
        return cls(found[1], int(found[2]))

    def __str__(self) -> str:
        return f"{self.kind}@{self.cutoff}"

    def of(self, gains: Grades, relevant: Grades) -> Floats:
        """The measure of each of q queries.

        Args:
            gains: (q, at least cutoff) grades of the results, best result first; 0 for what is not relevant.
            relevant: (q, r) grades of all the query's relevant items, in descending order, filled up with 0.

        Returns:
            (q,) from 0 to 1; 0 for a query without relevant items.
        """
        gains = gains[:, : self.cutoff]
        found = gains > 0
        some = np.asarray(found.any(axis=1))
        if self.kind == "Success":
            return some.astype(np.float64)
        if self.kind == "RR":
            return _ratio(some, found.argmax(axis=1) + 1)
        if self.kind == "R":
            return _ratio(found.sum(axis=1), (relevant > 0).sum(axis=1))
        return _ratio(_discounted(gains), _discounted(relevant[:, : self.cutoff]))


def _discounted(gains: Grades) -> Floats:
    discounted: Floats = gains @ (1.0 / np.log2(np.arange(gains.shape[1]) + 2.0))
    return discounted


def _ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> Floats:
    ratio: Floats = np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
    return ratio
