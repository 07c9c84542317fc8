"""The bootstrap that a fit is judged by."""

from __future__ import annotations

import numpy as np
import pytest

from dbnorm_vdb.validation import lowest_gain


def test_it_is_the_percentile_of_resampled_means() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(0.1, 1.0, size=300)
    means = [rng.choice(differences, size=300).mean() for _ in range(4000)]
    lowest, changed = lowest_gain(differences, np.arange(300))
    assert lowest == pytest.approx(np.quantile(means, 0.05), abs=0.01)
    assert changed == 300


def test_queries_of_a_group_are_drawn_together() -> None:
    differences = np.random.default_rng(1).normal(0.1, 1.0, size=100)
    alone, changed = lowest_gain(differences, np.arange(100))
    copies, together = lowest_gain(np.repeat(differences, 4), np.repeat(np.arange(100), 4))
    assert copies == pytest.approx(alone, abs=0.005), "four copies of each are no more evidence"
    assert (changed, together) == (100, 100)
    assert lowest_gain(np.repeat(differences, 4), np.arange(400))[0] > alone + 0.02


def test_a_useless_method_passes_in_about_one_of_twenty() -> None:
    """Differences as normalisation makes them: mostly 0, else up or down alike."""
    rng = np.random.default_rng(2)
    draws = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], p=[0.1, 0.1, 0.6, 0.1, 0.1], size=(300, 200))
    passed = sum(lowest_gain(draw, np.arange(200), seed=seed)[0] > 0 for seed, draw in enumerate(draws))
    assert 3 <= passed <= 27, "15 are expected"


def test_no_difference_is_no_gain() -> None:
    assert lowest_gain(np.zeros(20), np.arange(20)) == (0.0, 0)
