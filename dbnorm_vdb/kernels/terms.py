"""Which rows of a result share an exponential: those of one beta whose bank weights differ moderately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dbnorm_vdb.kernels.arrays import Array, Floats

# Exponents are shifted so that the largest is 0, and exp(-87) is the smallest normal float32. With weights that differ
# by no more than this, a term that is lost is less than exp(-37) of the sum, whatever its weight.
_LARGEST_SPREAD = 50.0


@dataclass
class Term:
    """One exponential of each element, and the weighted sums that it serves.

    Row `rows[i]` of the result is `log(sum_b factors[i, b] * exp(beta * s_b + addend_b)) + log_scales[i]`.

    Attributes:
        beta: inverse temperature.
        addend: (m,) added to the exponents; None for none.
        rows: which rows of the result it serves.
        factors: (r, m) weights, the largest of each row 1.
        log_scales: what the rows of `factors` were divided by; logarithms.
    """

    beta: float
    addend: Array | None
    rows: list[int] = field(default_factory=list)
    factors: Array = None
    log_scales: list[float] = field(default_factory=list)

    def largest_exponent(self, similarity: float) -> float:
        """A bound of the absolute value of every exponent, weights included."""
        addend = 0.0 if self.addend is None else float(np.abs(self.addend).max())
        return self.beta * similarity + addend - float(np.log(self.factors.min()))

    def takes(self, beta: float, log_weights: Floats) -> bool:
        """Whether weights of this beta can be factors of the same exponential."""
        return self.beta == beta and float(np.ptp(self._relative(log_weights))) <= _LARGEST_SPREAD

    def add(self, row: int, log_weights: Floats) -> None:
        """Serve one more row of the result."""
        relative = self._relative(log_weights)
        scale = float(relative.max())
        factors = np.exp(relative - scale)[None]
        self.factors = factors if self.factors is None else np.concatenate([self.factors, factors])
        self.rows.append(row)
        self.log_scales.append(scale)

    def _relative(self, log_weights: Floats) -> Floats:
        relative: Floats = log_weights if self.addend is None else log_weights - self.addend
        return relative


def make_terms(betas: Sequence[float], log_weights: Floats) -> list[Term]:
    """As few terms as will do for rows of (k,) betas and (k, m) log weights."""
    terms: list[Term] = []
    for row, (beta, weights) in enumerate(zip(betas, log_weights, strict=True)):
        term = next((term for term in terms if term.takes(beta, weights)), None)
        if term is None:
            term = Term(beta, None)
            if not term.takes(beta, weights):
                term.addend = weights
            terms.append(term)
        term.add(row, weights)
    return terms
