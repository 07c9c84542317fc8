"""The always-valid test: the e-process is what its docstring says, and its interval is its dual."""

import itertools
import math

import numpy as np
import pytest

from dbnorm_vdb.experiments.sequential import FRACTIONS, WEIGHTS, arm_scores, confidence_interval, log_wealth, p_values

RNG = np.random.default_rng(0)


def scores(count, effect, share=0.5, rate=0.3):
    treated = RNG.random(count) < share
    outcomes = (RNG.random(count) < rate + effect * treated).astype(float)
    return arm_scores(outcomes, treated, share)


def test_wealth_is_the_weighted_average_over_bets_of_both_signs():
    values, bounds, mean = np.array([0.3, -0.2, 0.5]), np.array([1.0, 2.0, 1.5]), 0.1
    for n in (1, 2, 3):
        expected = 0
        for bet, weight in zip([*FRACTIONS, *-FRACTIONS], [*WEIGHTS / 2, *WEIGHTS / 2], strict=True):
            expected += weight * math.prod(1 + bet * (values[i] - mean) / bounds[i] for i in range(n))
        assert log_wealth(values, bounds, mean)[n - 1] == pytest.approx(math.log(expected))


def test_wealth_is_a_martingale_under_the_hypothesis():
    """Exactly, over all ways in which a coin of any bias can fall: its expected value is 1 at every time."""
    for share in (0.5, 0.2):
        paths = np.array(list(itertools.product([0.0, 1.0], repeat=8)))
        probability = (share**paths * (1 - share) ** (1 - paths)).prod(axis=1)
        wealth = np.exp(log_wealth(paths, 1.0, share))
        assert probability @ wealth == pytest.approx(np.ones(8))


def test_p_values_never_rise_and_are_at_most_one():
    found = p_values(np.array([-1.0, 2.0, 0.0, 3.0]))
    assert found == pytest.approx([1.0, math.exp(-2), math.exp(-2), math.exp(-3)])


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_scores_are_unbiased_whatever_happened_before(share):
    """Over all assignments of four users with fixed outcomes in each arm, exactly."""
    potential = RNG.random((2, 4))
    expected = np.zeros(4)
    for arms in itertools.product([0, 1], repeat=4):
        treated = np.array(arms, dtype=bool)
        outcomes = np.where(treated, potential[1], potential[0])
        found, bounds = arm_scores(outcomes, treated, share)
        expected += found * np.prod(np.where(treated, share, 1 - share))
        assert (np.abs(found) + 1 <= bounds + 1e-12).all()
    assert expected == pytest.approx(potential[1] - potential[0])


@pytest.mark.parametrize("effect", [0.0, 0.03, 0.06, 0.1, -0.2])
@pytest.mark.parametrize("count", [0, 1, 30, 700, 4000])
def test_zero_is_outside_the_interval_when_the_bets_against_it_have_won_enough(effect, count):
    values, bounds = scores(count, effect)
    low, high = confidence_interval(values, bounds, level=0.95, lowest=-1, highest=1)
    won = count > 0 and log_wealth(values, bounds)[-1] >= math.log(20)
    assert (not low <= 0 <= high) == won
    assert -1 <= low < high <= 1


def test_the_interval_is_what_the_bets_do_not_speak_against():
    """Also where the bounds differ, as when weights are changed."""
    outcomes, treated = RNG.random(600), RNG.random(600) < (share := np.linspace(0.2, 0.8, 600))
    values, bounds = arm_scores(outcomes * (0.7 + 0.3 * treated), treated, share)
    low, high = confidence_interval(values, bounds, level=0.9, lowest=-1, highest=1)
    assert low < high
    for mean in np.linspace(-0.5, 0.7, 25):
        rejected = log_wealth(values, bounds, mean)[-1] >= math.log(10)
        assert rejected == (not low <= mean <= high)


def test_intervals_hold_the_truth_at_all_times_together():
    """It is outside once the bets against it have won enough."""
    never_outside = [log_wealth(*scores(300, 0.2), 0.2).max() < math.log(5) for _ in range(200)]
    assert np.mean(never_outside) >= 0.8


def test_intervals_narrow_with_the_square_root_of_the_users():
    widths = []
    for count in (1000, 16_000):
        low, high = confidence_interval(*scores(count, 0.0), level=0.95, lowest=-1, highest=1)
        widths.append(high - low)
    assert 3 < widths[0] / widths[1] < 5
    ordinary = 2 * 1.96 * 2 * math.sqrt(0.21 / 16_000)
    assert 1.2 < widths[1] / ordinary < 2.2
