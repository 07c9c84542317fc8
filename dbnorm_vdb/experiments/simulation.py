"""Simulated users: click models, to rehearse an experiment before real users meet it, and to test the statistics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.experiments.sequential import Booleans, Floats


def position_based_clicks(attraction: npt.ArrayLike, rng: np.random.Generator, *, decay: float = 1.0) -> Booleans:
    """Clicks of users who look at each rank by itself: rank `r` with the probability `r ** -decay`.

    An item that is looked at is clicked with the probability of its attraction (Richardson et al., WWW 2007).

    Args:
        attraction: (..., k) in [0, 1], of the items shown, best rank first.
        rng: the source of chance.
        decay: how fast attention fades.

    Returns:
        (..., k) which are clicked.
    """
    attractions: Floats = np.asarray(attraction, dtype=np.float64)
    looked_at = np.arange(1, attractions.shape[-1] + 1) ** -float(decay)
    clicked: Booleans = rng.random(attractions.shape) < looked_at * attractions
    return clicked


def cascade_clicks(attraction: npt.ArrayLike, rng: np.random.Generator, *, patience: float = 0.8) -> Booleans:
    """Clicks of users who go down the list, and leave it at their first click (Craswell et al., WSDM 2008).

    Args:
        attraction: (..., k) in [0, 1], of the items shown, best rank first.
        rng: the source of chance.
        patience: the probability to go on to the next rank, each time that nothing was clicked.

    Returns:
        (..., k) which are clicked: one of each list at most.
    """
    attractions: Floats = np.asarray(attraction, dtype=np.float64)
    attracted = rng.random(attractions.shape) < attractions
    left = rng.random(attractions.shape) >= patience
    gone = np.logical_or.accumulate(attracted | left, axis=-1)
    gone_before = np.concatenate([np.zeros_like(gone[..., :1]), gone[..., :-1]], axis=-1)
    clicked: Booleans = attracted & ~gone_before
    return clicked
