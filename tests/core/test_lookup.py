"""The statistics of one generation in memory: what was put in under an id is found under it, and nothing else is."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbnorm_vdb import ItemStatistics
from dbnorm_vdb.lookup import StatisticsLookup


def numbered(n):
    """Statistics of `n` items that differ from item to item."""
    rows = np.arange(n, dtype=np.float64)
    return ItemStatistics(rows / 8, -rows / 4, rows % 2 == 0, rows % 3 == 0)


def assert_row(found, row, source):
    """Row `row` of `found` holds the statistics numbered `source`; None: it is unknown."""
    if source is None:
        assert np.isnan([found.query_bias[row], found.gallery_bias[row]]).all()
        assert (found.query_activated[row], found.gallery_activated[row]) == (False, False)
    else:
        assert (found.query_bias[row], found.gallery_bias[row]) == (source / 8, -source / 4)
        assert (found.query_activated[row], found.gallery_activated[row]) == (source % 2 == 0, source % 3 == 0)


INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 20), unique=True, max_size=20)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), unique=True, max_size=20)


@settings(deadline=None, max_examples=200)
@given(ids=INTEGERS | TEXTS, data=st.data())
@example(ids=["a", "b", "ab", "ä", ""], data=None)
def test_every_id_finds_its_own_statistics_and_an_absent_one_none(ids, data):
    held = ids if data is None else data.draw(st.lists(st.sampled_from(ids), unique=True) if ids else st.just([]))
    lookup = StatisticsLookup(3, held, numbered(len(held)))
    assert (lookup.generation, len(lookup)) == (3, len(held))
    found, missing = lookup.find(ids)
    assert len(found) == len(ids)
    assert missing == [row for row, item in enumerate(ids) if item not in held]
    for row, item in enumerate(ids):
        assert_row(found, row, held.index(item) if item in held else None)


def test_ids_that_differ_by_a_trailing_nul_are_different_ids():
    lookup = StatisticsLookup(1, ["a", "b"], numbered(2))
    found, missing = lookup.find(["a\x00", "b"])
    assert missing == [0]
    assert_row(found, 0, None)
    assert_row(found, 1, 1)


@pytest.mark.parametrize("ids", [[7, 7, 2, 7], ["x", "x", "b", "x"]], ids=["integers", "text"])
def test_an_id_may_be_asked_for_more_than_once(ids):
    lookup = StatisticsLookup(1, [ids[2], ids[0]], numbered(2))
    found, missing = lookup.find(ids)
    assert missing == []
    for row, source in enumerate([1, 1, 0, 1]):
        assert_row(found, row, source)


@pytest.mark.parametrize("ids", [[1, 2], ["a", "b"]], ids=["integers", "text"])
def test_an_empty_lookup_misses_everything(ids):
    found, missing = StatisticsLookup(1, [], numbered(0)).find(ids)
    assert missing == [0, 1]
    assert np.isnan(found.query_bias).all()


def test_no_ids_find_nothing():
    found, missing = StatisticsLookup(1, [5], numbered(1)).find([])
    assert (len(found), missing) == (0, [])


def test_a_bias_that_is_not_there_stays_unknown():
    one_bank = ItemStatistics(np.array([0.5]), np.array([np.nan]), np.array([True]), np.array([False]))
    found, missing = StatisticsLookup(1, [9], one_bank).find([9])
    assert missing == []
    assert found.query_bias[0] == 0.5
    assert np.isnan(found.gallery_bias[0])


@pytest.mark.parametrize("ids", [[1, 2, 3], ["a", "b", "c"]], ids=["integers", "text"])
def test_ids_that_the_database_does_not_know_are_not_asked_for_again_until_forgotten(ids):
    lookup = StatisticsLookup(1, ids[:1], numbered(1))
    assert lookup.find(ids)[1] == [1, 2]
    lookup.remember_unknown([ids[1]])
    found, missing = lookup.find(ids)
    assert missing == [2]
    assert_row(found, 1, None)
    lookup.forget_unknown()
    assert lookup.find(ids)[1] == [1, 2]


def test_a_change_of_what_was_found_does_not_reach_the_lookup():
    lookup = StatisticsLookup(1, [1], numbered(1))
    lookup.find([1])[0].query_bias[:] = 9.0
    assert_row(lookup.find([1])[0], 0, 0)


def test_it_fits_if_its_bytes_do():
    assert StatisticsLookup.fits(0, 0)
    assert StatisticsLookup.fits(1_000_000, 64_000_000)
    assert not StatisticsLookup.fits(1_000_000, 16_000_000)
