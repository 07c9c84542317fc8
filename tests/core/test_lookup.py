"""Statistics in memory: what was put in under an id is found under it, and nothing else is."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbnorm_vdb import ItemStatistics
from dbnorm_vdb.lookup import StatisticsLookup, StatisticsTable, bytes_per_item, keys_of

BOTH = ("query", "gallery")


def numbered(sources):
    """Statistics of items that differ from number to number."""
    rows = np.array(list(sources), dtype=np.float64)
    return ItemStatistics(rows / 8, -rows / 4, rows % 2 == 0, rows % 3 == 0)


def assert_row(found, row, source):
    """Row `row` of `found` holds the statistics numbered `source`; None: it is unknown."""
    if source is None:
        assert np.isnan([found.query_bias[row], found.gallery_bias[row]]).all()
        assert (found.query_activated[row], found.gallery_activated[row]) == (False, False)
    else:
        assert (found.query_bias[row], found.gallery_bias[row]) == (source / 8, -source / 4)
        assert (found.query_activated[row], found.gallery_activated[row]) == (source % 2 == 0, source % 3 == 0)


def lookup_of(ids):
    return StatisticsLookup([(ids[:2], numbered(range(len(ids[:2])))), (ids[2:], numbered(range(2, len(ids))))], BOTH)


def test_it_is_made_in_little_more_memory_than_it_takes():
    page, pages = 5000, 40

    def made():
        for number in range(pages):
            yield range(number * page, (number + 1) * page), numbered(range(page))

    tracemalloc.start()
    lookup = StatisticsLookup(made(), BOTH)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(lookup) == page * pages
    assert peak < 3.5 * lookup.nbytes


def table_of(ids, size=4096):
    table = StatisticsTable(size, BOTH)
    table.put(keys_of(ids), numbered(range(len(ids))))
    return table


INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 20), unique=True, max_size=20)
UNSIGNED = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 20), unique=True, max_size=20)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), unique=True, max_size=20)
MIXED = st.lists(st.integers(0, 20) | st.uuids().map(str), unique=True, max_size=20)


@settings(deadline=None, max_examples=300)
@given(ids=INTEGERS | UNSIGNED | TEXTS | MIXED, data=st.data())
@example(ids=["a", "b", "ab", "ä", ""], data=None)
@pytest.mark.parametrize("holding", [lookup_of, table_of], ids=["lookup", "table"])
def test_every_id_finds_its_own_statistics_and_an_absent_one_none(holding, ids, data):
    held = ids if data is None else data.draw(st.lists(st.sampled_from(ids), unique=True) if ids else st.just([]))
    holder = holding(held)
    assert len(holder) == len(held)
    found, missing = holder.find(keys_of(ids))
    assert len(found) == len(ids)
    assert missing.tolist() == [row for row, item in enumerate(ids) if item not in held]
    for row, item in enumerate(ids):
        assert_row(found, row, held.index(item) if item in held else None)


def test_an_id_has_the_same_key_whatever_stands_beside_it():
    assert keys_of([5])[0] == keys_of([5, 2**64 - 1])[0] == keys_of([5, "a"])[0] == keys_of(np.array([5]))[0]
    assert keys_of(["a"])[0] == keys_of([7, "a"])[1]
    assert keys_of(["5"])[0] != keys_of([5])[0]


@pytest.mark.parametrize("holding", [lookup_of, table_of], ids=["lookup", "table"])
def test_ids_that_differ_by_a_trailing_nul_are_different_ids(holding):
    found, missing = holding(["a", "b"]).find(keys_of(["a\x00", "b"]))
    assert missing.tolist() == [0]
    assert_row(found, 0, None)
    assert_row(found, 1, 1)


@pytest.mark.parametrize("holding", [lookup_of, table_of], ids=["lookup", "table"])
@pytest.mark.parametrize("ids", [[7, 7, 2, 7], ["x", "x", "b", "x"]], ids=["integers", "text"])
def test_an_id_may_be_asked_for_more_than_once(holding, ids):
    found, missing = holding([ids[2], ids[0]]).find(keys_of(ids))
    assert missing.tolist() == []
    for row, source in enumerate([1, 1, 0, 1]):
        assert_row(found, row, source)


@pytest.mark.parametrize("holding", [lookup_of, table_of], ids=["lookup", "table"])
@pytest.mark.parametrize("ids", [[0, 2], ["a", "b"]], ids=["integers", "text"])
def test_what_is_empty_misses_everything(holding, ids):
    found, missing = holding([]).find(keys_of(ids))
    assert missing.tolist() == [0, 1]
    assert np.isnan(found.query_bias).all()


@pytest.mark.parametrize("holding", [lookup_of, table_of], ids=["lookup", "table"])
def test_no_ids_find_nothing(holding):
    found, missing = holding([5]).find(keys_of([]))
    assert (len(found), len(missing)) == (0, 0)


def test_a_bias_that_is_not_there_stays_unknown():
    one_bank = ItemStatistics(np.array([0.5]), np.array([np.nan]), np.array([True]), np.array([False]))
    found, missing = StatisticsLookup([([9], one_bank)], ["query"]).find(keys_of([9]))
    assert missing.tolist() == []
    assert found.query_bias[0] == 0.5
    assert np.isnan(found.gallery_bias[0])


@pytest.mark.parametrize("holding", [lookup_of, table_of], ids=["lookup", "table"])
def test_a_change_of_what_was_found_does_not_reach_what_is_held(holding):
    holder = holding([1])
    holder.find(keys_of([1]))[0].query_bias[:] = 9.0
    assert_row(holder.find(keys_of([1]))[0], 0, 0)


def test_new_statistics_take_the_place_of_old_ones():
    lookup = lookup_of([1, 2, 3])
    lookup.replace(keys_of([3, 9]), numbered([7, 8]))
    found, missing = lookup.find(keys_of([1, 3, 9]))
    assert_row(found, 0, 0)
    assert_row(found, 1, 7)
    assert missing.tolist() == [2]
    table = table_of([1, 2, 3])
    table.put(keys_of([3, 9]), numbered([7, 8]))
    found, missing = table.find(keys_of([1, 3, 9]))
    assert [missing.tolist(), len(table)] == [[], 4]
    for row, source in enumerate([0, 7, 8]):
        assert_row(found, row, source)


@settings(deadline=None, max_examples=100)
@given(
    size=st.sampled_from([0, 7, 8, 16, 64]),
    batches=st.lists(st.lists(st.integers(0, 200), unique=True, max_size=40), max_size=8),
)
def test_a_full_table_gives_up_some_items_and_mistakes_none(size, batches):
    table = StatisticsTable(size, BOTH)
    for batch in batches:
        table.put(keys_of(batch), numbered(batch))
    everything = list(range(201))
    found, missing = table.find(keys_of(everything))
    held = sorted(set(everything) - set(missing.tolist()))
    assert len(held) == len(table) <= size
    assert set(held) <= {item for batch in batches for item in batch}
    for item in everything:
        assert_row(found, item, item if item in held else None)


@pytest.mark.parametrize("first", [0, 10**6, -(10**6)])
def test_a_table_with_some_room_to_spare_holds_nearly_all(first):
    """Also ids that follow each other."""
    ids = range(first, first + 100_000)
    table = table_of(ids, size=150_000)
    assert len(table) > 0.99 * len(ids)


def test_the_last_that_was_put_in_is_there():
    table = StatisticsTable(8, BOTH)
    for item in range(50):
        table.put(keys_of([item]), numbered([item]))
        assert table.find(keys_of([item]))[1].tolist() == []


@pytest.mark.parametrize("columns", [("query",), BOTH, ("query", "gallery", "sinkhorn")])
def test_it_takes_the_memory_that_it_says(columns):
    ids = list(range(8000))
    items = ItemStatistics.of_biases(len(ids), {name: np.ones(len(ids)) for name in columns})
    per_item = bytes_per_item(len(columns))
    assert per_item * 8000 <= StatisticsLookup([(ids, items)], columns).nbytes <= per_item * 8002
    assert StatisticsTable(8000, columns).nbytes <= (per_item + 2) * 8000
