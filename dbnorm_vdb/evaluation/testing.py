"""Figures with their intervals, and differences from the baseline with their tests."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.evaluation.resampling import Sample, bootstrap_figures, holm, interval, permutation_p_values
from dbnorm_vdb.evaluation.results import Difference, Interval, MeasureInfo, Settings

Floats = npt.NDArray[np.float64]
Values = Mapping[str, Mapping[str, Floats]]
"""{arm: {measure: (n,) per judged query}}."""

_EQUAL = 1e-12


def estimate_and_test(
    values: Values, measures: Sequence[MeasureInfo], baseline: str, settings: Settings
) -> tuple[dict[str, dict[str, Interval]], list[Difference]]:
    """Every arm's figures, and every difference from the baseline.

    Args:
        values: of all arms and measures, aligned by query.
        measures: how values become figures, and which way is better.
        baseline: the arm that the others are compared with.
        settings: resamples, confidence and seed.

    Returns:
        `{arm: {measure: figure}}`, and the differences, whose p-values are corrected over all of them (Holm).
    """
    infos = {measure.name: measure for measure in measures}
    cells = list(itertools.product(values, infos))
    samples = {(arm, name): Sample(values[arm][name], infos[name].statistic == "median") for arm, name in cells}
    drawn = bootstrap_figures(list(samples.values()), resamples=settings.resamples, seed=settings.seed)
    columns = dict(zip(cells, drawn.T, strict=True))
    estimates: dict[str, dict[str, Interval]] = {arm: {} for arm in values}
    for (arm, name), sample in samples.items():
        estimates[arm][name] = _interval(sample.figure(), columns[arm, name], settings)
    tested = [cell for cell in cells if cell[0] != baseline]
    pairs = [(samples[arm, name], samples[baseline, name]) for arm, name in tested]
    p_values = permutation_p_values(pairs, resamples=settings.resamples, seed=settings.seed)
    differences = []
    for (arm, name), p_value, adjusted in zip(tested, p_values, holm(p_values), strict=True):
        difference = estimates[arm][name].value - estimates[baseline][name].value
        wins, ties, losses = _outcomes(values[arm][name], values[baseline][name], infos[name])
        differences.append(
            Difference(
                arm=arm,
                measure=name,
                difference=_interval(difference, columns[arm, name] - columns[baseline, name], settings),
                p_value=p_value,
                p_adjusted=adjusted,
                significant=adjusted < 1 - settings.confidence,
                wins=wins,
                ties=ties,
                losses=losses,
            )
        )
    return estimates, differences


def _interval(value: float, figures: Floats, settings: Settings) -> Interval:
    low, high = interval(figures, settings.confidence)
    return Interval(value=value, low=low, high=high)


def gains(values: Floats, baseline: Floats, measure: MeasureInfo) -> Floats:
    """(n,) by how much better each query does than with the baseline; 0 where the difference is but rounding."""
    difference = values - baseline if measure.larger_is_better else baseline - values
    return np.where(np.abs(difference) > _EQUAL, difference, 0.0)


def _outcomes(values: Floats, baseline: Floats, measure: MeasureInfo) -> tuple[int, int, int]:
    """Wins, ties and losses."""
    signs = np.sign(gains(values, baseline, measure))
    return int((signs > 0).sum()), int((signs == 0).sum()), int((signs < 0).sum())
