"""Relevance judgements: every form becomes one, and what cannot be used is refused with its place."""

import gzip
import json
from collections import namedtuple
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

from dbnorm_vdb import InvalidJudgementsError
from dbnorm_vdb.evaluation.judgements import item_key, query_keys, read_judgements, relevance_of_rows

EXPECTED = {"q1": {"7": 1, "9": 2}, "q2": {"7": 0, "8": 1}}
ROWS = [("q1", 7, 1), ("q1", 9, 2), ("q2", 7, 0), ("q2", 8, 1)]

FILES = {
    "qrels.txt": "".join(f"{query} 0 {item} {grade}\n" for query, item, grade in ROWS),
    "trec.tsv": "".join(f"{query}\t0\t{item}\t{grade}\n" for query, item, grade in ROWS),
    "beir.tsv": "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{i}\t{g}\n" for q, i, g in ROWS),
    "rows.csv": "grade,qid,docno\n" + "".join(f"{g},{q},{i}\n" for q, i, g in ROWS),
    "rows.jsonl": "".join(json.dumps({"query_id": q, "doc_id": i, "relevance": g}) + "\n" for q, i, g in ROWS),
    "queries.jsonl": '{"query_id": "q1", "relevant": {"7": 1, "9": 2}}\n\n{"qid": "q2", "relevant": {"7": 0, "8": 1}}',
    "qrels.json": json.dumps(EXPECTED),
    "list.json": json.dumps([{"query": q, "item": i, "grade": g} for q, i, g in ROWS]),
}

Qrel = namedtuple("Qrel", "query_id doc_id relevance iteration")


class Polars:
    """As much of a polars data frame as is used."""

    def __init__(self, **columns):
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name):
        return pd.Series(self._columns[name])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
def test_files(tmp_path, name, zipped):
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(FILES[name].encode()) if zipped else FILES[name].encode())
    assert read_judgements(path) == read_judgements(str(path)) == EXPECTED


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "qrels.tsv"
    path.write_text("query-id\tcorpus-id\tscore\nq1\t7\t1\n", encoding="utf-8-sig")
    assert read_judgements(path) == {"q1": {"7": 1}}


def test_a_damaged_archive_is_said_to_be_one(tmp_path):
    path = tmp_path / "qrels.trec.gz"
    whole = bytearray(gzip.compress(b"".join(b"q%d 0 %d 1\n" % (row, row * 7919 % 997) for row in range(500))))
    whole[40:80] = b"\xff" * 40
    path.write_bytes(bytes(whole))
    with pytest.raises(InvalidJudgementsError, match="qrels.trec.gz' cannot be read"):
        read_judgements(path)


@pytest.mark.parametrize(
    "qrels",
    [
        {"q1": {7: 1, "9": 2.0}, "q2": {7: 0, 8: True}},
        ROWS,
        iter(ROWS),
        np.array([[str(field) for field in row] for row in ROWS]),
        [Qrel(*row, "0") for row in ROWS],
        [{"qid": query, "docid": item, "relevance": str(grade)} for query, item, grade in ROWS],
        [{"qid": "q1", "relevant": [(7, 1), (9, 2)]}, {"qid": "q2", "relevant": {7: 0, 8: 1}}],
        pd.DataFrame(ROWS, columns=["query_id", "doc_id", "relevance"]),
        Polars(qid=["q1", "q1", "q2", "q2"], docno=[7, 9, 7, 8], label=[1, 2, 0, 1]),
    ],
    ids=["mapping", "tuples", "iterator", "array", "namedtuples", "records", "nested", "pandas", "polars"],
)
def test_values_in_memory(qrels):
    assert read_judgements(qrels) == EXPECTED


@pytest.mark.parametrize("qrels", [{1: 7, 2: "8"}, {"1": [7], 2: ("8",)}, [(1, 7), (2, 8)], {1: np.array([7]), 2: {8}}])
def test_without_a_grade_it_is_one(qrels):
    assert read_judgements(qrels) == {"1": {"7": 1}, "2": {"8": 1}}


def test_relevance_row_by_row():
    expected = {"a": {"7": 1}, "b": {"8": 1, "9": 1}, "d": {"x": 2}}
    assert relevance_of_rows([7, [8, "9"], [], {"x": 2}], ["a", "b", "c", "d"]) == expected
    assert relevance_of_rows(np.array([4, 5]), 2) == {"0": {"4": 1}, "1": {"5": 1}}
    assert relevance_of_rows(np.array([[4, 5], [6, 7]]), query_keys(2))["1"] == {"6": 1, "7": 1}


def test_keys_are_text_as_in_files():
    identifier = UUID(int=5)
    assert [item_key(key) for key in (12, np.int64(12), "12", np.str_("12"))] == ["12"] * 4
    assert item_key(identifier) == str(identifier)
    for wrong in (1.0, True, None, b"7"):
        with pytest.raises(TypeError):
            item_key(wrong)


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ({}, "no judgements"),
        ([], "no judgements"),
        (7, "got int"),
        ("nowhere.txt", "there is no file 'nowhere.txt'"),
        ([("q", 7, 0.5)], "row 0: a grade must be an integer, got 0.5"),
        ([("q", 7, "high")], "got 'high'"),
        ([("q", 7, float("nan"))], "got nan"),
        ([("q", 7), ("q", 7.0)], "row 1: an id must be text or an integer, got float 7.0; a data frame"),
        ([("q", None)], "got NoneType"),
        ({"q": [True]}, "got bool True"),
        ([("q", 7, 1), ("q", "7", 2)], "row 1: item '7' of query 'q' has the grades 1 and 2"),
        ([("q",)], "row 0: expected (query, item)"),
        (["q"], "got 'q'"),
        ([{"query_id": "q", "name": 7}], "one of doc_id, corpus-id"),
        (pd.DataFrame({"text": ["q"], "doc_id": [7]}), "one of query_id, query-id"),
        ({"q": [(1, 2, 3)]}, "expected an item or (item, value)"),
    ],
)
def test_what_cannot_be_used_is_refused(qrels, message):
    with pytest.raises(InvalidJudgementsError) as raised:
        read_judgements(qrels)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "q1 0 7 1\nq1 0 7\n", "'a.txt', line 2: expected the 4 columns of a TREC file (query iteration"),
        ("a.txt", "q1 0 7 x\n", "line 1: a grade must be an integer, got 'x'"),
        ("a.tsv", "query-id\tcorpus-id\tscore\nq1\t7\n", "line 2: expected 3 columns"),
        ("a.jsonl", '{"query_id": 1,', "line 1: not JSON"),
        ("a.json", "7", "expected an object by query"),
        ("a.txt.gz", "q1 0 7 1\n", "cannot be read"),
        ("a.txt", b"q1 0 \xff 1\n", "cannot be read"),
        ("a.txt", "\n", "no judgements"),
    ],
)
def test_the_place_in_a_file_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidJudgementsError) as raised:
        read_judgements(tmp_path / name)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("relevant", "message"),
    [
        ([7], "has 1 entries for 2 queries"),
        ("ab", "expected an entry for each query"),
        ({0: 7, 1: 8}, "judgements by query key are qrels"),
        (7, "got int"),
        ([7, None], "row 1: an id must be text"),
        ([[], []], "no query has a relevant item"),
        ([7, {8: 0.5}], "row 1: a grade must be"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(relevant, message):
    with pytest.raises(InvalidJudgementsError) as raised:
        relevance_of_rows(relevant, 2)
    assert message in str(raised.value)
