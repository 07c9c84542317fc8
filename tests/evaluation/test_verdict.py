"""What is concluded from figures: better, worse, mixed, undecided."""

import numpy as np
import pytest

from dbnorm_vdb.evaluation import compare
from dbnorm_vdb.evaluation.examples import most_changed

COUNT = 40
QRELS = {str(query): {"good": 1, "fine": 1} for query in range(COUNT)}
FOUND = {
    "early": ["good", "x", "y", "z", "w"],
    "middle": ["x", "good", "y", "z", "w"],
    "both late": ["x", "y", "z", "good", "fine"],
    "late": ["x", "y", "z", "w", "good"],
}


def run(kind, *, but=None, every=1):
    """Rankings of one kind, every so many of another."""
    return {str(query): FOUND[but if but and query % every == 0 else kind] for query in range(COUNT)}


def verdict(measures=("RR", "R@5"), **arms):
    return compare(arms, qrels=QRELS, measures=measures, limit=5, depth=5, resamples=400)


@pytest.mark.parametrize(
    ("arm", "decision", "headline"),
    [
        (run("early"), "better", "Yes: arm is better than base on 40 queries: RR +0.5"),
        (run("late"), "worse", "No: arm is worse than base on 40 queries: RR -0.3"),
        (run("both late"), "mixed", "It depends: arm beats base by some measures and loses by others (40 queries)."),
        (run("middle", but="early", every=20), "undecided", "Not shown: on 40 queries no difference by RR"),
        (run("middle"), "undecided", "Not shown"),
    ],
    ids=["better", "worse", "mixed", "a little better", "equal"],
)
def test_decisions(arm, decision, headline):
    told = verdict(base=run("middle"), arm=arm)
    assert told.verdict.headline.startswith(headline)
    assert told.verdict.arms[0].decision == decision


def test_the_best_arm_is_named_first_and_the_others_with_it():
    told = verdict(base=run("late"), some=run("middle"), most=run("early"), bad=run("late"))
    assert told.verdict.headline.startswith("Yes: most is better than base")
    assert told.verdict.headline.endswith("; so is some.")
    assert [arm.decision for arm in told.verdict.arms] == ["better", "better", "undecided"]


def test_less_is_better_for_ranks():
    told = verdict(measures=["MeanRank"], base=run("late"), arm=run("early"))
    difference = told.difference("arm", "MeanRank")
    assert (difference.difference.value, difference.wins, difference.losses) == (-4, COUNT, 0)
    assert told.verdict.arms[0].decision == "better"


def test_significance_is_judged_after_the_correction():
    slight = {"base": run("middle"), "arm": run("middle", but="early", every=7)}
    alone = verdict(measures=["RR"], **slight).difference("arm", "RR")
    assert alone.significant
    among = verdict(measures=["RR"], **slight, **{f"same {n}": run("middle") for n in range(4)}).difference("arm", "RR")
    assert (among.p_value, among.p_adjusted) == (alone.p_value, pytest.approx(5 * alone.p_value))
    assert not among.significant


def test_most_improved_first_then_most_harmed_and_ranks_decide_among_equals():
    gained = [0.0, 0.5, -0.5, 0.5, 0.0, -0.1, 0.0]
    risen = [3.0, 1.0, -1.0, 9.0, -8.0, -2.0, 0.0]
    chosen = most_changed(np.array(gained), np.array(risen), 3)
    assert chosen == [(3, "improved"), (1, "improved"), (0, "improved"), (2, "harmed"), (5, "harmed"), (4, "harmed")]
    assert most_changed(np.array(gained), np.array(risen), 1) == [(3, "improved"), (2, "harmed")]
