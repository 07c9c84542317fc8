"""Arms compared: methods of a collection, callables and saved runs, with and without judgements."""

import csv
import json
import subprocess
import sys

import ir_measures
import numpy as np
import pytest
from adapters.world import World

import dbnorm_vdb as db
from dbnorm_vdb.evaluation import Arm, Comparison, compare, read_run

WORLD = World.make(n=90, seed=5)
FAST = {"resamples": 200, "latency_queries": 0}
RELEVANT = [int(row) for row in np.argsort(-WORLD.score_oracle("dual_is"), axis=1)[:, 0]]


def search_nothing(vectors):
    return [[] for _ in vectors]


async def search_later(vectors):
    return search_nothing(vectors)


class LaterAdapter:
    nearest = staticmethod(search_later)


def ranking(scores, depth=None):
    return [order[:depth].tolist() for order in np.argsort(-scores, axis=1)]


@pytest.fixture(scope="module")
def images(quick_engine):
    collection = quick_engine.create(WORLD.items)
    adapter = quick_engine.adapter(collection)
    WORLD.fit(adapter)
    yield adapter
    adapter.drop()
    quick_engine.drop_collection(collection)


@pytest.fixture(scope="module")
def result(images):
    return compare(
        ["raw", "dual_is,candidates=90", Arm("is", exact=True, name="exact is")],
        WORLD.queries,
        adapter=images,
        relevant=RELEVANT,
        texts=[f"query {row}" for row in range(16)],
        depth=20,
        limit=5,
        latency_queries=4,
        window_queries=6,
        examples=3,
        resamples=300,
    )


# --- what arms find, and what it is worth -------------------------------------------------------------------------


def test_every_arm_is_ranked_as_the_oracle_ranks(result):
    for name, method in (("raw", "raw"), ("dual_is,candidates=90", "dual_is"), ("exact is", "is")):
        scores = WORLD.raw() if method == "raw" else WORLD.score_oracle(method)
        depth = 5 if method == "is" else 20  # an exact search certifies what a user sees
        found = [result.runs[name][str(row)].items[:depth] for row in range(16)]
        assert found == [[str(item) for item in order] for order in ranking(scores, depth)]


def test_an_arm_re_ranks_the_window_of_its_users_however_deep_the_measures_look(images):
    told = compare(
        ["raw", "dual_is", "dual_is,candidates=12"],
        WORLD.queries,
        adapter=images,
        limit=5,
        depth=90,
        examples=0,
        **FAST,
    )
    for name in ("dual_is", "dual_is,candidates=12"):
        window = told.arm(name).candidates
        assert 5 < window < 90
        users = images.nearest(WORLD.queries, limit=window, candidates=window, method="dual_is")
        for row, hits in enumerate(users):
            found, raw = (told.runs[arm][str(row)].items for arm in (name, "raw"))
            assert found[:window] == [str(hit.id) for hit in hits]
            assert found[window:] == raw[window:], "below the window the engine's order"


def test_figures_are_the_oracles(result):
    raw = np.argsort(-WORLD.raw(), axis=1)
    ranks = np.array([row.tolist().index(item) + 1 for row, item in zip(raw, RELEVANT, strict=True)])
    estimates = result.arm("raw").estimates
    assert estimates["R@1"].value == pytest.approx((ranks == 1).mean())
    assert estimates["R@5"].value == pytest.approx((ranks <= 5).mean())
    assert estimates["RR"].value == pytest.approx(np.where(ranks <= 20, 1 / ranks, 0).mean())
    assert estimates["MedianRank"].value == np.median(np.minimum(ranks, 21))
    assert result.arm("dual_is,candidates=90").estimates["R@1"].value == 1.0
    assert result.arm("raw").recall[4] == pytest.approx((ranks <= 5).mean(), abs=1e-6)


def test_differences_and_verdict(result):
    difference = result.difference("dual_is,candidates=90", "R@1")
    wins = int((np.argmax(WORLD.raw(), axis=1) != RELEVANT).sum())
    assert (difference.wins, difference.ties, difference.losses) == (wins, 16 - wins, 0)
    assert difference.difference.value == pytest.approx(wins / 16)
    assert difference.p_value <= difference.p_adjusted
    assert result.baseline == "raw"
    assert result.verdict.headline
    assert [verdict.arm for verdict in result.verdict.arms] == ["dual_is,candidates=90", "exact is"]
    assert any("few" in note for note in result.notes)


def test_hubness_latency_windows_and_agreement_are_there(result):
    raw = np.argsort(-WORLD.raw(), axis=1)[:, :5]
    expected = db.measure_hubness(db.k_occurrence(raw, 90))
    hubness = result.arm("raw").hubness
    assert hubness.measures["k_skewness"] == pytest.approx(expected.k_skewness)
    assert hubness.hubs[0].count == np.bincount(raw.ravel()).max()
    assert sum(items for _, items in hubness.occurrences) == 90
    assert len(result.arm("raw").latency.samples) == 4
    assert result.arm("raw").latency.ratio == 1.0
    windows = result.arm("dual_is,candidates=90").windows
    assert windows.points[-1].candidates == 90
    assert windows.points[-1].held == 1.0
    assert windows.points[0].held <= windows.points[-1].held
    assert result.arm("raw").windows is None
    agreement = result.agreements[0]
    both = np.argsort(-WORLD.score_oracle("dual_is"), axis=1)[:, :5]
    shared = [len({*one} & {*other}) / 5 for one, other in zip(raw, both, strict=True)]
    assert agreement.overlap == pytest.approx(np.mean(shared))


def test_examples_show_what_changed_most_with_payloads(result):
    improved = [example for example in result.examples if example.reason == "improved"]
    assert improved
    first = improved[0]
    assert first.text == f"query {first.row}"
    assert first.ranks["dual_is,candidates=90"] == 1
    shown = first.results["raw"][0].item
    assert result.payload("raw", shown)["number"] == int(shown)


def test_other_kinds_of_arms_say_the_same(images, result):
    def search(vectors):
        return images.nearest(vectors, limit=20, method="raw")

    runs = {f"{row}": {str(item): 100.0 - rank for rank, item in enumerate(order)}
            for row, order in enumerate(ranking(WORLD.raw(), 20))}  # fmt: skip
    arms = {"adapter": images, "function": search, "run": runs, "lists": ranking(WORLD.raw(), 20)}
    told = compare(arms, WORLD.queries, relevant=RELEVANT, depth=20, limit=5, item_count=90, **FAST)
    for name in ("function", "run", "lists"):
        assert told.arm(name).estimates["RR"].value == pytest.approx(result.arm("raw").estimates["RR"].value)
        assert told.arm(name).hubness.measures == pytest.approx(result.arm("raw").hubness.measures)
    assert told.arm("adapter").method == "dual_is"


def test_without_judgements_there_is_what_needs_none(images):
    told = compare(["raw", "dual_is"], WORLD.queries, adapter=images, limit=5, depth=10, **FAST)
    assert told.measures == told.differences == []
    assert told.arm("raw").hubness is not None
    assert told.agreements[0].first == "raw"
    assert told.verdict.arms[0].decision == "unjudged"
    assert {example.reason for example in told.examples} == {"changed"}


# --- saved, and read by others ------------------------------------------------------------------------------------


def test_trec_eval_finds_the_same_figures_in_what_is_saved(result, tmp_path):
    folder = tmp_path / "saved"
    assert {path.name for path in result.save(folder)} == {path.name for path in folder.iterdir()}
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels.trec")))
    names = [info.name for info in result.measures if "Rank" not in info.name]
    for arm in result.arms:
        path = next(path for path in folder.glob("*.run") if arm.name.replace(" ", "-").replace(",", "-") == path.stem)
        found = ir_measures.pytrec_eval.calc_aggregate(
            [ir_measures.parse_measure(name) for name in names], qrels, list(ir_measures.read_trec_run(str(path)))
        )
        for measure, value in found.items():
            assert value == pytest.approx(arm.estimates[str(measure)].value), (arm.name, measure)
        again = read_run(path)
        assert {query: one.items for query, one in again.items()} == {
            query: one.items for query, one in result.runs[arm.name].items()
        }
    with (folder / "per_query.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16 * 3
    mean = np.mean([float(row["RR"]) for row in rows if row["arm"] == "raw"])
    assert mean == pytest.approx(result.arm("raw").estimates["RR"].value)
    loaded = Comparison.load(folder)
    assert loaded == result.model_copy(update={"runs": {}, "judgements": {}})
    with pytest.raises(db.InvalidParameterError, match="no empty folder"):
        result.save(folder)


def test_equal_scores_keep_their_order_in_trec_eval(tmp_path):
    runs = {"ties": {"q": [("b", 0.5), ("a", 0.5), ("c", 0.5)]}, "ranks": {"q": ["c", "b", "a"]}}
    told = compare(runs, qrels={"q": {"a": 1}}, limit=2, depth=3, measures=["RR"], **FAST)
    told.save(tmp_path / "ties")
    for name, reciprocal in (("ties", 1 / 2), ("ranks", 1 / 3)):
        run = list(ir_measures.read_trec_run(str(tmp_path / "ties" / f"{name}.run")))
        qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "ties" / "qrels.trec")))
        found = ir_measures.pytrec_eval.calc_aggregate([ir_measures.RR], qrels, run)
        assert found[ir_measures.RR] == pytest.approx(reciprocal) == told.arm(name).estimates["RR"].value


@pytest.mark.parametrize(
    ("query", "item", "message"),
    [("first query", "a", "the query key 'first query' cannot be written"), ("q", "a\tb", r"the item key 'a\\tb'")],
)
def test_keys_that_a_trec_file_cannot_hold_are_refused_before_anything_is_written(query, item, message, tmp_path):
    told = compare({"one": {query: [item, "c"]}, "two": {query: ["c"]}}, limit=2, depth=3, **FAST)
    with pytest.raises(db.InvalidRunError, match=message):
        told.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_comparison_read_from_json_has_no_runs_to_save(result, tmp_path):
    result.save(tmp_path / "saved")
    with pytest.raises(db.InvalidRunError, match="holds no runs"):
        Comparison.load(tmp_path / "saved").save(tmp_path / "again")


# --- bad input ----------------------------------------------------------------------------------------------------

RUN = {str(row): order for row, order in enumerate(ranking(WORLD.raw(), 5))}
GOOD = {"a": ranking(WORLD.raw(), 5), "b": ranking(WORLD.raw(), 5)}
BAD = {
    "one arm": ({"arms": {"a": GOOD["a"]}}, db.InvalidParameterError, "at least two arms"),
    "no queries": ({"queries": None, "arms": {"a": search_nothing, "b": RUN}},
                   db.InvalidInputError, "pass query vectors"),
    "baseline": ({"baseline": "c"}, db.InvalidParameterError, "'c' is no arm"),
    "measure": ({"measures": ["Precisely@3"]}, db.InvalidParameterError, "Precisely"),
    "cutoff": ({"measures": ["R@50"], "depth": 20}, db.InvalidParameterError, "50"),
    "primary": ({"primary": "AP(rel=3)"}, db.InvalidParameterError, "not among the measures"),
    "depth": ({"depth": 3, "limit": 5}, db.InvalidParameterError, "less than limit"),
    "confidence": ({"confidence": 95}, db.InvalidParameterError, "confidence"),
    "resamples": ({"resamples": 0}, db.InvalidParameterError, "resamples"),
    "items of another kind": ({"relevant": ["x"] * 16}, db.InvalidJudgementsError, "same kind"),
    "both": ({"qrels": {"0": {"1": 1}}}, db.InvalidParameterError, "pass one of them"),
    "async function": ({"arms": {"a": search_later, "b": RUN}}, db.InvalidParameterError, "arm 'a' is asynchronous"),
    "async adapter": ({"arms": {"a": LaterAdapter(), "b": RUN}}, db.InvalidParameterError,
                      "LaterAdapter is asynchronous"),
    "method without a collection": ({"arms": ["raw", "is"]}, db.InvalidParameterError, "say of which"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    changes, error, message = BAD[name]
    arguments = {"arms": GOOD, "queries": WORLD.queries, "relevant": RELEVANT, "depth": 20, "limit": 5, **FAST}
    with pytest.raises(error, match=message):
        compare(**{**arguments, **changes})


def test_an_arm_that_needs_statistics_says_so(quick_engine):
    collection = quick_engine.create(WORLD.items)
    with pytest.raises(db.NotFittedError, match="no statistics"):
        compare(["raw", "dual_is"], WORLD.queries, adapter=quick_engine.adapter(collection), **FAST)
    quick_engine.drop_collection(collection)


# --- command line -------------------------------------------------------------------------------------------------


def test_runs_are_compared_on_the_command_line(tmp_path):
    (tmp_path / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{i}\t1\n" for q, i in enumerate(RELEVANT))
    )
    for name, scores in (("raw", WORLD.raw()), ("dual", WORLD.score_oracle("dual_is"))):
        lines = (
            f"{q} Q0 {item} {rank} {20 - rank} t"
            for q, order in enumerate(ranking(scores, 15))
            for rank, item in enumerate(order)
        )
        (tmp_path / f"{name}.run").write_text("\n".join(lines))
    command = [sys.executable, "-m", "dbnorm_vdb", "compare", "--qrels", "qrels.tsv", "--arm", "run:raw.run",
               "--arm", "ours=run:dual.run", "--depth", "15", "--limit", "5", "--resamples", "200"]  # fmt: skip
    told = subprocess.run(
        [*command, "--json", "--save", "out"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = json.loads(told.stdout)
    assert [arm["name"] for arm in found["arms"]] == ["raw", "ours"]
    assert found["arms"][1]["estimates"]["R@1"]["value"] == 1.0
    assert (tmp_path / "out" / "comparison.json").exists()
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "nDCG@10" in shown
    assert "Against raw" in shown
    refused = subprocess.run([*command, "--save", "out"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (refused.returncode, "no empty folder" in refused.stderr) == (2, True)
