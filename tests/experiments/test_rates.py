"""Intervals and tests at one planned look, against scipy's."""

import numpy as np
import pytest
from scipy import stats

from dbnorm_vdb.experiments.binomial import binomial_p_value, clopper_pearson, sample_ratio_p_value
from dbnorm_vdb.experiments.rates import difference, wilson_interval

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (37, 1000), (1, 1)])
def test_of_one_impression_a_user_the_interval_is_wilsons(successes, trials):
    outcomes = np.repeat([1.0, 0.0], [successes, trials - successes])
    wilson = stats.binomtest(successes, trials).proportion_ci(0.95, "wilson")
    assert wilson_interval(outcomes, level=0.95) == pytest.approx((successes / trials, wilson.low, wilson.high))


def test_of_several_impressions_a_user_the_interval_goes_by_the_users_variance():
    """Each of 4000 users clicks on half of 9 impressions, by chance: as good as 36 000 independent impressions."""
    means = RNG.binomial(9, 0.5, 4000) / 9
    found = wilson_interval(means, level=0.95)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(36_000), rel=0.05)
    clustered = np.repeat([1.0, 0.0], 2000)  # who clicks clicks on all: as good as 4000
    found = wilson_interval(clustered, level=0.95)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(4000), rel=0.01)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5])
def test_intervals_cover_what_they_should(rate):
    """Users differ, and have one to many impressions."""
    spread = RNG.beta(8 * rate, 8 * (1 - rate), (2000, 300))
    outcomes = RNG.binomial(impressions := 1 + RNG.poisson(2, (2000, 300)), spread) / impressions
    found = [wilson_interval(row, level=0.95) for row in outcomes]
    covered = np.mean([interval.low <= rate <= interval.high for interval in found])
    assert 0.93 < covered < 0.98


def test_of_no_users_nothing_is_known():
    value, low, high = wilson_interval(np.empty(0), level=0.95)
    assert (np.isnan(value), low, high) == (True, 0.0, 1.0)


def test_a_difference_is_welchs():
    outcomes, treated = RNG.random((3, 200)), RNG.random((3, 200)) < 0.3
    outcomes = outcomes**2 + 0.2 * treated * outcomes * (1 - outcomes)
    found = difference(outcomes, treated, level=0.9)
    for row in range(3):
        welch = stats.ttest_ind(outcomes[row][treated[row]], outcomes[row][~treated[row]], equal_var=False)
        interval = welch.confidence_interval(0.9)
        assert found.p_value[row] == pytest.approx(welch.pvalue)
        assert (found.low[row], found.high[row]) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    ("outcomes", "treated"),
    [
        (np.zeros(40), np.arange(40) < 20),
        (np.repeat([0.0, 1.0], 20), np.arange(40) < 20),
        (np.tile([0.0, 1.0], 20), np.arange(40) < 9),
        (np.empty(0), np.empty(0, bool)),
    ],
    ids=["no clicks", "no variance", "nine users in an arm", "nobody"],
)
def test_too_little_to_tell_is_no_difference(outcomes, treated):
    found = difference(outcomes, treated, level=0.95)
    assert (float(found.low), float(found.high), float(found.p_value)) == (-1.0, 1.0, 1.0)


def test_the_sign_test_is_exact():
    assert binomial_p_value(9, 10) == pytest.approx(2 * 11 / 1024)
    assert binomial_p_value(0, 0) == 1.0
    assert clopper_pearson(0, 10, level=0.95) == pytest.approx((0, 0, 1 - 0.025**0.1))
    assert clopper_pearson(0, 0, level=0.95) == (0.5, 0.0, 1.0)


def test_sample_ratios():
    assert sample_ratio_p_value([5000, 5000], [0.5, 0.5]) == 1.0
    assert sample_ratio_p_value([5200, 4800], [0.5, 0.5]) < 1e-4
    assert sample_ratio_p_value([0, 0], [0.5, 0.5]) == 1.0
    assert sample_ratio_p_value([90, 10], [0.9, 0.1]) == 1.0
    assert sample_ratio_p_value([7, 0], [1.0, 0.0]) == 1.0
    assert sample_ratio_p_value([7, 1], [1.0, 0.0]) == 0.0
    assert sample_ratio_p_value([334, 333, 333], [1 / 3] * 3) == 1.0
    assert sample_ratio_p_value([400, 300, 300], [1 / 3] * 3) < 1e-4


def test_sample_ratios_of_many_arms_ring_falsely_no_more_often_than_they_should():
    counts = RNG.multinomial(60, [0.7, 0.2, 0.1], 300)
    found = np.array([sample_ratio_p_value(row.tolist(), [0.7, 0.2, 0.1]) for row in counts])
    assert (found <= 0.05).mean() <= 0.05
