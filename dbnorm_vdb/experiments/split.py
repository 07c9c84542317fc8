"""Which arm a key belongs to: weighted rendezvous hashing.

Every arm draws a waiting time for the key, exponential with the arm's weight as its rate, from a hash of the salt, the
experiment, the arm and the key; the shortest wins. The arm is then `j` with probability `w_j / sum(w)`, independently
between keys, salts and experiments (Thaler and Ravishankar 1998; with weights: Schindelhauer and Schomaker 2005, the
logarithmic method). Nothing is stored, and the order of the arms does not matter.

What a change of weights does: a key moves from arm `i` to arm `j` only if `j`'s weight grew relative to `i`'s. So with
two arms, or when one arm's weight is changed, or an arm is added or removed, as few keys move as possible: the total
variation distance between the old and the new probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dbnorm_vdb.experiments.keys import digest


def assigned_arm(key: str, arms: Sequence[str], weights: Sequence[float], *, experiment: str, salt: str) -> str:
    """The arm of a key. `weights` need not sum to 1; an arm of weight 0 gets no key."""
    return min(
        (-math.log((digest(salt, experiment, arm, key) + 1) / 2**64) / weight, arm)
        for arm, weight in zip(arms, weights, strict=True)
        if weight > 0
    )[1]
