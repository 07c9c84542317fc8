"""Who gets which arm: the same everywhere, in the right shares, independently, and moved as little as possible."""

import os
import subprocess
import sys
from collections import Counter
from uuid import UUID

import numpy as np
import pytest
from scipy import stats

from dbnorm_vdb import InvalidParameterError, Method
from dbnorm_vdb.experiments import Experiment

KEYS = range(4_000)


def arms_of(keys=KEYS, name="hubs", arms=("raw", "dual_is"), **settings):
    experiment = Experiment(name, arms, **settings)
    return [experiment.assign(key) for key in keys]


def moves(before, after):
    return Counter(pair for pair in zip(before, after, strict=True) if pair[0] != pair[1])


def test_assignments_never_change_between_versions():
    """Users of a running experiment would change sides."""
    experiment = Experiment("hubs", ("raw", "is", "dual_is"), weights=(2, 1, 1), salt="2025")
    keys = ["anna", "berta", "cäsar", "日本", "1", "2", "3", "x" * 256]
    expected = ["is", "is", "raw", "raw", "raw", "is", "raw", "dual_is"]
    assert [experiment.assign(key) for key in keys] == expected


def test_another_process_with_another_hash_seed_assigns_alike():
    script = (
        "from dbnorm_vdb.experiments import Experiment\n"
        "e = Experiment('hubs', ('raw', 'dual_is'), salt='s')\n"
        "print(*(e.assign(k) for k in range(200)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    told = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True, timeout=60)
    assert told.split() == arms_of(range(200), salt="s")


@pytest.mark.parametrize("weights", [None, (0.5, 0.5), (9, 1), (0.999, 0.001)])
@pytest.mark.parametrize("keys", [KEYS, [f"user-{n}@example.org" for n in KEYS]], ids=["numbers", "addresses"])
def test_shares_are_the_weights(weights, keys):
    counts = Counter(arms_of(keys, weights=weights))
    share = 0.5 if weights is None else weights[1] / sum(weights)
    assert stats.binomtest(counts["dual_is"], len(keys), share).pvalue > 1e-4


def test_shares_of_many_arms_are_the_weights():
    weights = (5, 1, 2, 0, 2)
    counts = Counter(arms_of(arms=tuple("abcde"), weights=weights))
    assert counts["d"] == 0
    found = [counts[arm] for arm in "abce"]
    assert stats.chisquare(found, [len(KEYS) * weight / 10 for weight in (5, 1, 2, 2)]).pvalue > 1e-4


@pytest.mark.parametrize(
    "others", [{"salt": "other"}, {"name": "another"}, {"salt": "s1"}], ids=["salt", "experiment", "similar salt"]
)
def test_splits_of_different_salts_and_experiments_are_independent(others):
    table = Counter(zip(arms_of(salt="s"), arms_of(**{"salt": "s", **others}), strict=True))
    both = [[table[one, other] for other in ("raw", "dual_is")] for one in ("raw", "dual_is")]
    assert stats.chi2_contingency(both).pvalue > 1e-4


def test_parts_of_the_seed_do_not_run_into_each_other():
    """Salt "ab" of experiment "c" is another split than salt "a" of "bc"."""
    table = moves(arms_of(salt="ab", name="c"), arms_of(salt="a", name="bc"))
    assert 0.48 < table.total() / len(KEYS) < 0.52


def test_the_order_of_arms_does_not_matter():
    assert arms_of(arms=("a", "b", "c"), weights=(1, 2, 3)) == arms_of(arms=("c", "a", "b"), weights=(3, 1, 2))


@pytest.mark.parametrize(("before", "after"), [((5, 5), (6, 4)), ((99, 1), (50, 50)), ((1, 1), (1, 0))])
def test_with_two_arms_a_change_of_weights_moves_as_few_as_possible(before, after):
    """The total variation distance, all in one direction."""
    found = moves(arms_of(weights=before), arms_of(weights=after))
    assert len(found) == 1
    least = abs(before[0] / sum(before) - after[0] / sum(after))
    assert stats.binomtest(found.total(), len(KEYS), least).pvalue > 1e-4


def test_with_many_arms_only_those_move_that_one_changed_weight_concerns():
    arms = ("a", "b", "c", "d")
    found = moves(arms_of(arms=arms, weights=(1, 1, 1, 1)), arms_of(arms=arms, weights=(3, 1, 1, 1)))
    assert {after for _, after in found} == {"a"}
    assert stats.binomtest(found.total(), len(KEYS), 3 / 6 - 1 / 4).pvalue > 1e-4


def test_a_key_moves_only_to_an_arm_that_grew_relative_to_its_own():
    arms, before, after = ("a", "b", "c"), (1, 2, 3), (3, 4, 3)
    growth = {arm: new / old for arm, old, new in zip(arms, before, after, strict=True)}
    found = moves(arms_of(arms=arms, weights=before), arms_of(arms=arms, weights=after))
    assert found
    assert all(growth[new] > growth[old] for old, new in found)


def test_a_new_arm_takes_its_share_and_nobody_else_moves():
    found = moves(arms_of(arms=("a", "b")), arms_of(arms=("new", "a", "b")))
    assert {after for _, after in found} == {"new"}
    assert stats.binomtest(found.total(), len(KEYS), 1 / 3).pvalue > 1e-4


def test_keys_may_be_text_numbers_or_uuids_and_a_number_is_its_digits():
    experiment = Experiment("hubs", ("raw", "dual_is"))
    uuid = UUID(int=7)
    assert experiment.assign(np.int64(17)) == experiment.assign(17)
    assert [experiment.assign(key) for key in (17, uuid)] == [experiment.assign(key) for key in ("17", str(uuid))]


def test_methods_are_arms():
    experiment = Experiment("hubs", (Method.RAW, Method.DUAL_IS))
    assert experiment.arms == ("raw", "dual_is")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arms": ("raw",)}, "2 to 16 arms"),
        ({"arms": "raw"}, "2 to 16 arms"),
        ({"arms": ("raw", "raw")}, "must differ"),
        ({"arms": ("raw", "")}, "1 to 64 characters"),
        ({"arms": ("raw", None)}, "got None"),
        ({"name": ""}, "experiment name"),
        ({"weights": (1,)}, "2 arms need 2 weights"),
        ({"weights": (0, 0)}, "not all 0"),
        ({"weights": (1, -1)}, "at least 0"),
        ({"weights": (1, float("nan"))}, "finite"),
        ({"weights": (1, float("inf"))}, "finite"),
        ({"weights": (1, "1")}, "finite"),
        ({"salt": 7}, "salt must be a string"),
    ],
)
def test_an_experiment_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(InvalidParameterError, match=message):
        Experiment(**{"name": "hubs", "arms": ("raw", "dual_is"), **arguments})


@pytest.mark.parametrize("key", ["", "x" * 257, None, 1.5, True, b"raw", "\ud800"])
def test_a_key_that_cannot_be_one_is_refused(key):
    with pytest.raises(InvalidParameterError, match="key"):
        Experiment("hubs", ("raw", "dual_is")).assign(key)
