"""Simulated users: errors are as rare as is claimed, at one look or at a look after every user; and there is power.

1 000 experiments each. Users differ in how much they click and in how often they come.
"""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from dbnorm_vdb.experiments.binomial import binomial_p_value
from dbnorm_vdb.experiments.interleaving import team_draft
from dbnorm_vdb.experiments.rates import difference
from dbnorm_vdb.experiments.sequential import arm_scores, log_wealth, p_values
from dbnorm_vdb.experiments.simulation import cascade_clicks, position_based_clicks

RUNS = 1000
ALPHA = 0.05
MOST = stats.binom.ppf(0.999, RUNS, ALPHA) / RUNS
"""A test whose error rate is 5 % shows more than this in one of a thousand such simulations: 7.2 %."""


def ever(p_value_paths):
    """The share of experiments in which a look after some user would have rejected."""
    return float((p_value_paths[:, -1] <= ALPHA).mean())  # it never rises


# --- split ---------------------------------------------------------------------------------------------------------


def split_users(users, *, effect=0.0, share=0.5, drift=0.0, seed=0):
    """(runs, users) mean click-through of users, and whether they are in the second arm, which clicks more by `effect`.

    Rates are 10 % on average, spread widely; nine in ten users have an impression or a few, and some dozens.
    """
    rng = np.random.default_rng(seed)
    shape = (RUNS, users)
    treated = rng.random(shape) < share
    heavy = rng.random(shape) < 0.1
    impressions = 1 + rng.poisson(np.where(heavy, 30, 1))
    personal = rng.beta(0.5, 4.5, shape) + drift * np.linspace(0, 1, users)
    clicked = rng.binomial(impressions, np.clip(personal * (1 + effect * treated), 0, 1))
    return clicked / impressions, treated, impressions


def test_without_a_difference_the_planned_look_errs_in_five_percent():
    outcomes, treated, _ = split_users(400)
    rate = (difference(outcomes, treated, level=0.95).p_value <= ALPHA).mean()
    assert 0.02 < rate <= MOST


def test_without_a_difference_a_look_after_every_user_errs_in_five_percent_at_most():
    outcomes, treated, _ = split_users(400)
    assert ever(p_values(log_wealth(*arm_scores(outcomes, treated, 0.5)))) <= ALPHA


def test_nor_does_it_err_more_when_rates_and_weights_change_meanwhile():
    """Clicks grow by half of all impressions while the second arm's share is raised from a tenth to nine tenths."""
    share = np.linspace(0.1, 0.9, 400)
    outcomes, treated, _ = split_users(400, share=share, drift=0.5)
    assert ever(p_values(log_wealth(*arm_scores(outcomes, treated, share)))) <= ALPHA
    assert (difference(outcomes, treated, level=0.95).p_value <= ALPHA).mean() > 0.9, "where plain means are all wrong"


def test_what_the_rules_are_for():
    """Looking at the ordinary test after every batch, or counting impressions instead of users, errs far more often."""
    outcomes, treated, impressions = split_users(400)
    looks = [difference(outcomes[:, :users], treated[:, :users], level=0.95).p_value for users in range(40, 401, 20)]
    assert (np.min(looks, axis=0) <= ALPHA).mean() > 0.15
    clicked, shown = outcomes * impressions, impressions
    rates = [(clicked * arm).sum(axis=1) / (shown * arm).sum(axis=1) for arm in (treated, ~treated)]
    error = [
        rate * (1 - rate) / (shown * arm).sum(axis=1) for rate, arm in zip(rates, (treated, ~treated), strict=True)
    ]
    statistic = (rates[0] - rates[1]) / np.sqrt(error[0] + error[1])
    assert (np.abs(statistic) > 1.96).mean() > 0.3


def test_a_better_arm_is_found():
    outcomes, treated, _ = split_users(800, effect=1.0)
    scores, bounds = arm_scores(outcomes, treated, 0.5)
    paths = p_values(log_wealth(scores, bounds))
    assert ever(paths) > 0.8
    assert (difference(outcomes, treated, level=0.95).p_value <= ALPHA).mean() > 0.95
    found = paths[:, -1] <= ALPHA
    stopped = np.argmax(paths <= ALPHA, axis=1)
    assert np.median(stopped[found]) < 600, "most stop early"
    at_stop = np.cumsum(scores, axis=1)[np.arange(RUNS), stopped]
    assert (at_stop[found] > 0).mean() > 0.99, "and say that it is the second arm"


# --- interleaving --------------------------------------------------------------------------------------------------


def drafts(lists, attraction):
    """(queries, coins, 10) attraction and team of what is shown, for each way in which the five coins can fall."""
    found, teams = [], []
    for first, second in lists:
        for tosses in product([False, True], repeat=5):
            items, _, picked = team_draft(first, second, iter(tosses), limit=10, id_of=lambda item: item)
            found.append(attraction[items])
            teams.append(picked)
    shape = (len(lists), 32, 10)
    return np.reshape(found, shape), np.reshape(teams, shape)


def preferences(lists, attraction, *, users, model, seed=1):
    """(runs, users) whom users prefer: 1, -1 or 0. Everyone has a few impressions, and a mood of their own to click."""
    rng = np.random.default_rng(seed)
    shown, teams = drafts(lists, attraction)
    count = 1 + rng.poisson(1, RUNS * users)
    user = np.repeat(np.arange(RUNS * users), count)
    mood = rng.beta(2, 2, RUNS * users)[user]
    query, coins = rng.integers(len(lists), size=len(user)), rng.integers(32, size=len(user))
    clicked = model(shown[query, coins] * mood[:, None], rng)
    winner = np.sign((clicked * np.where(teams[query, coins] == 1, 1, -1)).sum(axis=1))
    return np.sign(np.bincount(user, weights=winner, minlength=RUNS * users)).reshape(RUNS, users)


def two_rankings(*, better, seed=2):
    """Ten queries with two rankings each of overlapping items, and how attractive items are.

    Every other item is relevant; the second ranking has those at the top if it is `better`. Else both are as good,
    since each pair of lists is there a second time, exchanged.
    """
    rng = np.random.default_rng(seed)
    attraction = np.tile([0.1, 0.9], 200)
    lists = []
    for query in range(10):
        pool = np.arange(query * 20, query * 20 + 20)
        first, second = rng.permutation(pool)[:10].tolist(), rng.permutation(pool)[:10].tolist()
        if better:
            second.sort(key=lambda item: item % 2, reverse=True)
        lists += [(first, second)] if better else [(first, second), (second, first)]
    return lists, attraction


def sign_tests(preferred):
    wins, losses = (preferred > 0).sum(axis=1), (preferred < 0).sum(axis=1)
    return np.array([binomial_p_value(int(win), int(win + loss)) for win, loss in zip(wins, losses, strict=True)])


@pytest.mark.parametrize("model", [position_based_clicks, cascade_clicks])
def test_without_a_preference_interleaving_errs_in_five_percent_at_most(model):
    preferred = preferences(*two_rankings(better=False), users=150, model=model)
    assert np.abs(preferred).mean() > 0.2, "many have clicked more on one team's"
    assert (sign_tests(preferred) <= ALPHA).mean() <= ALPHA
    assert ever(p_values(log_wealth(preferred / 2, 1.0))) <= ALPHA


@pytest.mark.parametrize("model", [position_based_clicks, cascade_clicks])
def test_a_better_ranking_is_preferred(model):
    preferred = preferences(*two_rankings(better=True), users=150, model=model)
    assert (sign_tests(preferred) <= ALPHA).mean() > 0.95
    assert ever(p_values(log_wealth(preferred / 2, 1.0))) > 0.9
    assert (preferred.mean(axis=1) > 0).all()


# --- users as they are simulated -----------------------------------------------------------------------------------


def test_position_based_users_look_at_each_rank_by_itself():
    clicked = position_based_clicks(np.full((200_000, 3), 0.5), np.random.default_rng(0), decay=1.0)
    assert clicked.mean(axis=0) == pytest.approx([0.5, 0.25, 0.5 / 3], abs=0.005)
    assert np.corrcoef(clicked.T)[0, 1] == pytest.approx(0, abs=0.01)


def test_cascade_users_leave_at_their_first_click():
    clicked = cascade_clicks(np.full((200_000, 3), 0.5), np.random.default_rng(0), patience=0.8)
    assert clicked.sum(axis=1).max() == 1
    assert clicked.mean(axis=0) == pytest.approx([0.5, 0.5 * 0.4, 0.5 * 0.4**2], abs=0.005)
