"""A tuning from queries to settings: with labels, and without."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from arrays import ArrayCollection
from labelled import LabelledWorld

from dbnorm_vdb import Bank, InvalidJudgementsError, InvalidParameterError, TuneResult, UnsupportedMethodError
from dbnorm_vdb.evaluation.gains import Measure
from dbnorm_vdb.evaluation.labelled import LabelledQueries
from dbnorm_vdb.tuning import TuneOptions, tune
from dbnorm_vdb.tuning.selection import cross_validated
from dbnorm_vdb.tuning.trying import try_settings

WORLD = LabelledWorld.make(q=600)
DEV, NEW = slice(0, 300), slice(300, 600)
NO_LABELS: dict[str, Any] = {"queries": None, "relevant": None}


def tuned(bank: np.ndarray = WORLD.query_bank, *, rows: slice = DEV, **given: Any) -> TuneResult:
    data = {"queries": WORLD.queries[rows], "relevant": WORLD.own[rows].tolist()}
    asked = {name: given.pop(name, value) for name, value in data.items()}
    banks = {"query": Bank.of(bank), "gallery": Bank.of(WORLD.gallery_bank)}
    collection = ArrayCollection(WORLD.items)
    options = TuneOptions(**given)
    return tune(collection, collection.nearest, collection.info, asked["queries"], asked["relevant"], banks, options)


def test_the_gain_that_is_promised_is_found_on_queries_it_has_not_seen() -> None:
    found = tuned()
    assert found.validated
    assert found.held_out is not None
    only = {"methods": [found.best.setting.method], "betas": [found.best.setting.query_beta]}
    unseen = tuned(rows=NEW, **only)
    (again,) = [trial for trial in unseen.trials if trial.setting == found.best.setting]
    gain, error = found.held_out.gain, found.held_out.standard_error
    assert gain > 5 * error, "in this world there is something to gain"
    assert abs(unseen.gain(again) - gain) < 2.5 * np.sqrt(2) * error


def test_every_query_is_measured_with_the_setting_chosen_without_its_fold() -> None:
    found = tuned(WORLD.misleading_bank)
    assert found.held_out is not None
    assert len(found.held_out.chosen) > 1, "the folds do not agree"
    banks = {"query": Bank.of(WORLD.misleading_bank), "gallery": Bank.of(WORLD.gallery_bank)}
    collection = ArrayCollection(WORLD.items)
    labelled = LabelledQueries.of(WORLD.queries[DEV], WORLD.own[DEV].tolist(), what="", dimension=12)
    plan = TuneOptions().plan(banks, 10, 150, collection)
    tried = try_settings(collection, collection.nearest, collection.info.metric, labelled.vectors, banks, plan)
    values = tried.values(labelled, Measure.parse("nDCG@10"))
    chosen, fold_of = cross_validated(tried.settings, values, labelled.groups, folds=5, seed=0)
    gains = [values[chosen[fold], query] - values[0, query] for query, fold in enumerate(fold_of)]
    assert found.held_out.gain == pytest.approx(np.mean(gains))


def test_settings_are_arguments_of_fit() -> None:
    found = tuned(methods=["is"], betas=[2, 4, 8])
    assert found.settings == {"method": "is", "query_beta": 4.0}
    assert [trial.setting.method.value for trial in found.trials] == ["raw", "is", "is", "is"]
    assert found.in_words().startswith("is, query beta 4: nDCG@10 0.8")
    assert "5-fold cross-validation" in found.in_words()


def test_where_nothing_helps_it_says_raw() -> None:
    found = tuned(WORLD.misleading_bank, methods=["is", "dis"])
    assert found.settings == {"method": "raw"}
    assert found.highest.setting.method.value == "raw"
    assert found.held_out is not None
    assert found.held_out.gain == 0


def test_a_choice_that_may_owe_its_figure_to_chance_is_told() -> None:
    found = tuned(WORLD.misleading_bank)
    assert found.settings["method"] != "raw"
    assert found.warnings[0].startswith("no gain is shown: on queries that had no part in the choice")
    assert not any("no gain is shown" in warning for warning in tuned().warnings)


def test_without_labels_it_is_marked_as_unvalidated_wherever_it_shows(caplog: pytest.LogCaptureFixture) -> None:
    found = tuned(**NO_LABELS)
    assert (found.validated, found.held_out, found.objective) == (False, None, "robin_hood")
    assert found.gain(found.best) > 0.05, "less hubness"
    assert found.warnings[0].startswith("UNVALIDATED")
    assert found.in_words().startswith("UNVALIDATED: ")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "UNVALIDATED" in caplog.text
    assert found.query_count == 60, "a fifth of the bank is searched with, and is no part of the bank"


def test_without_labels_queries_may_be_given() -> None:
    found = tuned(queries=WORLD.queries, relevant=None)
    assert (found.validated, found.query_count) == (False, 600)
    assert found.bank_distance is not None


def test_what_makes_the_figures_less_than_they_seem_is_said() -> None:
    queries = np.concatenate([WORLD.queries[DEV], WORLD.query_bank[:9], WORLD.queries[:1]])
    relevant = [*WORLD.own[DEV].tolist(), *[4711] * 9, []]
    said = " ".join(tuned(queries=queries, relevant=relevant, methods=["is"], betas=[9, 20], candidates=15).warnings)
    assert "1 queries without a relevant item were left out" in said
    assert "1 relevant items are not in the collection" in said
    assert "9 of the 309 queries are in the query bank" in said
    assert "the best query beta, 9, is the smallest that was tried" in said
    assert "of the 15 candidates, so more of them may hold better ones" in said
    unlike = tuned(WORLD.misleading_bank)
    assert unlike.bank_distance is not None
    assert any(unlike.bank_distance.in_words() == warning for warning in unlike.warnings)
    assert "unlike the query bank: distance 0." in unlike.bank_distance.in_words()


def test_queries_of_the_same_item_are_one_observation() -> None:
    found = tuned(queries=np.repeat(WORLD.queries[:100], 3, axis=0), relevant=np.repeat(WORLD.own[:100], 3).tolist())
    once = tuned(queries=WORLD.queries[:100], relevant=WORLD.own[:100].tolist())
    assert found.group_count == once.group_count == len(set(WORLD.own[:100].tolist()))
    assert found.held_out is not None
    assert once.held_out is not None
    assert found.held_out.standard_error == pytest.approx(once.held_out.standard_error)


def test_graded_relevance_counts() -> None:
    relevant = [{int(own): 3, int(own + 1) % 150: 1} for own in WORLD.own[DEV]]
    graded = tuned(relevant=relevant, measure="nDCG@5", methods=["is"], betas=[4])
    assert graded.objective == "nDCG@5"
    assert graded.relevant_count == 600
    assert graded.raw.figures["nDCG@5"] > graded.raw.figures["R@5"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"queries": None}, InvalidParameterError, "says what is relevant to queries"),
        ({"measure": "MAP"}, InvalidParameterError, "unknown measure 'MAP'"),
        ({"folds": 1}, InvalidParameterError, "folds"),
        ({"folds": 301}, InvalidParameterError, "do not go into so many folds"),
        ({"candidates": 5}, InvalidParameterError, "candidates"),
        ({"methods": ["softmax"]}, UnsupportedMethodError, "softmax"),
        ({"betas": [0]}, InvalidParameterError, "betas"),
        ({"relevant": [7]}, InvalidJudgementsError, "1 entries for 300 queries"),
        ({"relevant": range(900, 1200)}, InvalidJudgementsError, "whose ids look like '0'"),
        ({"bank": WORLD.query_bank[:40], **NO_LABELS}, InvalidParameterError, "has 40 vectors and needs 50"),
    ],
)
def test_bad_input_is_named(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tuned(**given)


def test_every_method_needs_a_query_bank() -> None:
    collection = ArrayCollection(WORLD.items)
    with pytest.raises(UnsupportedMethodError, match="needs a query bank"):
        tune(collection, collection.nearest, collection.info, WORLD.queries, WORLD.own, {}, TuneOptions())
