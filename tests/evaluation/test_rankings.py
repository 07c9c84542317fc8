"""Runs: every form becomes one, ties are settled as trec_eval settles them, and what cannot be used is refused."""

import gzip
import json
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest

from dbnorm_vdb import InvalidRunError
from dbnorm_vdb.evaluation.rankings import Ranking, read_run, run_of_rows

ROWS = [("q1", 7, 0.5), ("q1", 9, 0.75), ("q2", 8, -1.0)]
EXPECTED = {"q1": Ranking(["9", "7"], [0.75, 0.5]), "q2": Ranking(["8"], [-1.0])}

FILES = {
    "trec.run": "".join(f"{query} Q0 {item} 1 {score} tag\n" for query, item, score in ROWS),
    "beir.tsv": "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{i}\t{s}\n" for q, i, s in ROWS),
    "rows.csv": "sim,qid,docno\n" + "".join(f"{s},{q},{i}\n" for q, i, s in ROWS),
    "rows.jsonl": "".join(json.dumps({"query_id": q, "doc_id": i, "score": s}) + "\n" for q, i, s in ROWS),
    "queries.jsonl": '{"qid": "q1", "results": [{"id": 7, "score": 0.5}, {"id": 9, "score": 0.75}]}\n'
    '{"qid": "q2", "hits": [[8, -1]]}',
    "run.json": '{"q1": {"7": 0.5, "9": 0.75}, "q2": {"8": -1}}',
}

Hit = namedtuple("Hit", "id score payload")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
def test_files(tmp_path, name, zipped):
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(FILES[name].encode()) if zipped else FILES[name].encode())
    assert read_run(path) == EXPECTED


@pytest.mark.parametrize(
    "run",
    [
        {"q1": {7: 0.5, 9: 0.75}, "q2": [("8", -1)]},
        ROWS,
        np.array([[str(field) for field in row] for row in ROWS]),
        pd.DataFrame(ROWS, columns=["query_id", "doc_id", "score"]),
        EXPECTED,
    ],
    ids=["mapping", "tuples", "array", "pandas", "rankings"],
)
def test_values_in_memory(run):
    assert read_run(run) == EXPECTED


def test_without_scores_the_order_is_that_of_the_rows():
    assert read_run({"q": [9, 7, 8]}) == {"q": Ranking(["9", "7", "8"], None)}


def test_equal_scores_keep_their_order_but_in_trec_files_go_by_descending_item(tmp_path):
    path = tmp_path / "ties.run"
    path.write_text("".join(f"q Q0 {item} {rank} 0.5 t\n" for rank, item in enumerate("acb", 1)))
    assert read_run(path)["q"].items == ["c", "b", "a"]
    assert read_run([("q", item, 0.5) for item in "acb"])["q"].items == ["a", "c", "b"]


@pytest.mark.parametrize(
    "rankings",
    [
        [[9, 7], [8]],
        [[(9, 0.75), (7, 0.5)], [(8, -1.0)]],
        [[Hit(9, 0.75, {}), Hit(7, 0.5, None)], [Hit("8", -1.0, {})]],
        [[{"id": 9, "score": 0.75}, {"id": 7, "score": 0.5}], [{"id": 8, "score": -1.0}]],
        [{7: 0.5, 9: 0.75}, {8: -1.0}],
        (np.array(row) for row in ([9, 7], [8])),
    ],
    ids=["ids", "pairs", "hits", "records", "mappings", "arrays"],
)
def test_rankings_row_by_row(rankings):
    found = run_of_rows(list(rankings), ["q1", "q2"])
    assert {query: ranking.items for query, ranking in found.items()} == {"q1": ["9", "7"], "q2": ["8"]}
    assert found["q1"].scores in (None, [0.75, 0.5])


def test_distances_ascend():
    assert run_of_rows([[(7, 0.1), (9, 0.2)]], ["q"])["q"] == Ranking(["7", "9"], [0.1, 0.2])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({}, "no results"),
        ("nowhere.run", "there is no file"),
        ([("q", 7, "high")], "must be a finite number, got 'high'"),
        ([("q", 7, float("nan"))], "got nan"),
        ([("q", 7, 0.5), ("q", 8, None)], "got None"),
        ([("q", 7, 0.5), ("q", "7", 0.4)], "item '7' of query 'q' is ranked twice"),
        (7, "got int"),
    ],
)
def test_what_cannot_be_used_is_refused(run, message):
    with pytest.raises(InvalidRunError) as raised:
        read_run(run)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("rankings", "message"),
    [
        ([[7]], "1 rankings for 2 queries"),
        ({"q1": [7], "q2": [8]}, "expected a ranking for each query, got dict"),
        ([[7], "8"], "row 1: expected a list of ids"),
        ([[7], [8, 8]], "row 1: item '8' is ranked twice"),
        ([[7], [(8, 0.1), (9, 0.3), (5, 0.2)]], "row 1: a ranking goes from best to worst"),
        ([[7], [8.5]], "row 1: an id must be text or an integer"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(rankings, message):
    with pytest.raises(InvalidRunError) as raised:
        run_of_rows(rankings, ["q1", "q2"])
    assert message in str(raised.value)


def test_the_line_of_a_file_is_named(tmp_path):
    (tmp_path / "a.run").write_text("q Q0 7 1 0.5 t\nq Q0 8 2\n")
    with pytest.raises(InvalidRunError, match=r"'a.run', line 2: expected the 6 columns of a TREC file \(query Q0"):
        read_run(tmp_path / "a.run")
