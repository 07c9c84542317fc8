"""A bank is a validated, read-only copy of the vectors it was given, known by its content."""

from uuid import UUID

import numpy as np
import pytest

from dbnorm_vdb import (
    Bank,
    DimensionMismatchError,
    EmptyBankError,
    InvalidParameterError,
    InvalidVectorsError,
    NonFiniteVectorError,
    ZeroVectorError,
)
from dbnorm_vdb.banks import check_vectors, sample_key

VECTORS = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(VECTORS, id="float32"),
        pytest.param(VECTORS.astype(np.float64), id="float64"),
        pytest.param(VECTORS.astype(">f4"), id="big-endian"),
        pytest.param(np.asfortranarray(VECTORS), id="Fortran order"),
        pytest.param(np.repeat(VECTORS, 2, axis=0)[::2], id="every second row of an array"),
        pytest.param(VECTORS.tolist(), id="lists"),
        pytest.param(tuple(VECTORS), id="a tuple of rows"),
        pytest.param(Bank.of(VECTORS), id="a bank"),
    ],
)
def test_vectors_become_float32_rows_in_order(given):
    bank = Bank.of(given)
    assert bank.vectors.dtype == np.float32
    assert bank.vectors.flags.c_contiguous
    np.testing.assert_array_equal(bank.vectors, VECTORS)
    assert (len(bank), bank.dimension) == (50, 4)


def test_whole_numbers_are_vectors_too():
    assert Bank.of([[1, 2], [3, 4]]).vectors.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_another_bank_keeps_its_source():
    bank = Bank(Bank.of(VECTORS).vectors, "captions")
    assert Bank.of(bank).source == "captions"
    assert Bank.of(VECTORS).source == "array"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_callers_array_stays_theirs(dtype):
    array = VECTORS.astype(dtype)
    bank = Bank.of(array)
    assert array.flags.writeable
    fingerprint = bank.fingerprint
    array[:] = 7
    np.testing.assert_array_equal(bank.vectors, VECTORS)
    assert Bank.of(bank.vectors).fingerprint == fingerprint


def test_a_read_only_view_of_the_callers_array_is_copied_as_well():
    array = VECTORS.copy()
    view = array.view()
    view.flags.writeable = False
    bank = Bank.of(view)
    array[:] = 7
    np.testing.assert_array_equal(bank.vectors, VECTORS)


def test_a_frozen_array_may_be_thawed_by_its_owner_without_changing_the_bank():
    array = VECTORS.copy()
    array.flags.writeable = False
    bank = Bank.of(array)
    array.flags.writeable = True
    array[:] = 7
    np.testing.assert_array_equal(bank.vectors, VECTORS)
    assert not bank.vectors.flags.writeable


@pytest.mark.parametrize("bank", [Bank.of(VECTORS), Bank.of(VECTORS.tolist()), Bank.of(VECTORS).sample(5)])
def test_a_bank_cannot_be_written_to(bank):
    with pytest.raises(ValueError, match="read-only"):
        bank.vectors[0, 0] = 1.0


BAD_VECTORS = [
    pytest.param(VECTORS[0], InvalidVectorsError, r"captions: .*shape \(4,\).*atleast_2d", id="one vector"),
    pytest.param(VECTORS[None], InvalidVectorsError, r"captions: .*shape \(1, 50, 4\)", id="three-dimensional"),
    pytest.param([[1.0, 2.0], [3.0]], InvalidVectorsError, "captions: .*inhomogeneous", id="ragged"),
    pytest.param([["a", "b"]], InvalidVectorsError, "captions: .*real numbers.*<U1", id="text"),
    pytest.param([["0.5", "1"]], InvalidVectorsError, "captions: .*real numbers.*<U3", id="numbers as text"),
    pytest.param([[None, 1.0]], NonFiniteVectorError, "captions: 1 of 1 .*NaN", id="None"),
    pytest.param(VECTORS * 1j, InvalidVectorsError, "captions: .*complex", id="complex"),
    pytest.param(VECTORS > 0, InvalidVectorsError, "captions: .*bool", id="truth values"),
    pytest.param([[1.0, np.nan], [1.0, 1.0]], NonFiniteVectorError, "captions: 1 of 2 .*first: row 0", id="NaN"),
    pytest.param([[1.0, 1.0], [np.inf, 1.0]], NonFiniteVectorError, "captions: 1 of 2 .*first: row 1", id="inf"),
    pytest.param([[1.0, 1e300]], NonFiniteVectorError, "captions: 1 of 1", id="beyond float32"),
    pytest.param([[1.0, 0.0], [0.0, 0.0]], ZeroVectorError, "captions: 1 of 2 .*first: row 1", id="a zero row"),
    pytest.param([[1e-300, 0.0]], ZeroVectorError, "captions: 1 of 1", id="zero in float32"),
]


@pytest.mark.parametrize(("vectors", "error", "message"), BAD_VECTORS)
def test_vectors_that_cannot_be_used_are_refused(vectors, error, message):
    with pytest.raises(error, match=message) as raised:
        Bank.of(vectors, what="captions")
    assert raised.type is error


@pytest.mark.parametrize("vectors", [[], [[]], np.empty((0, 4)), np.empty((3, 0))])
def test_a_bank_without_vectors_is_refused(vectors):
    with pytest.raises(EmptyBankError, match="captions: no vectors in it"):
        Bank.of(vectors, what="captions")


@pytest.mark.parametrize("given", [VECTORS, Bank.of(VECTORS)], ids=["array", "bank"])
def test_the_dimension_must_be_the_collections(given):
    assert Bank.of(given, dimension=4).dimension == 4
    with pytest.raises(DimensionMismatchError, match="captions: vectors have 4 dimensions, the collection has 512"):
        Bank.of(given, what="captions", dimension=512)


def test_check_vectors_accepts_zero_rows_where_a_zero_vector_has_a_meaning():
    assert check_vectors([[0, 0], [1, 2]], what="items", allow_zero=True).tolist() == [[0.0, 0.0], [1.0, 2.0]]
    with pytest.raises(ZeroVectorError, match="items: 1 of 2"):
        check_vectors([[0, 0], [1, 2]], what="items")


def test_check_vectors_accepts_no_rows_but_still_knows_their_dimension():
    assert check_vectors(np.empty((0, 4)), what="items", dimension=4).shape == (0, 4)
    with pytest.raises(DimensionMismatchError):
        check_vectors(np.empty((0, 4)), what="items", dimension=5)


# --- sampling -----------------------------------------------------------------------------------------------------


def rows_of(sample):
    """The rows of VECTORS that a sample holds, in its order."""
    return [int(np.flatnonzero((row == VECTORS).all(axis=1))[0]) for row in sample.vectors]


@pytest.mark.parametrize("size", [1, 20, 49])
def test_a_sample_is_drawn_without_replacement_and_keeps_the_order(size):
    rows = rows_of(Bank.of(VECTORS).sample(size, seed=3))
    assert len(set(rows)) == size
    assert rows == sorted(rows)


def test_a_sample_is_decided_by_its_seed():
    bank = Bank.of(VECTORS)
    assert rows_of(bank.sample(20, seed=1)) == rows_of(bank.sample(20, seed=1))
    assert rows_of(bank.sample(20, seed=1)) != rows_of(bank.sample(20, seed=2))
    assert rows_of(bank.sample(20)) == rows_of(bank.sample(20, seed=0))


@pytest.mark.parametrize("size", [50, 51, 10_000])
def test_a_sample_of_all_vectors_or_more_is_the_bank(size):
    assert Bank.of(VECTORS).sample(size).fingerprint == Bank.of(VECTORS).fingerprint


def test_a_sample_says_what_it_is_of():
    assert Bank.of(VECTORS).sample(20, seed=3).source == "array (20 of 50, seed 3)"


@pytest.mark.parametrize("size", [0, -1])
def test_a_sample_has_at_least_one_vector(size):
    with pytest.raises(InvalidParameterError, match=f"sample size must be at least 1, got {size}"):
        Bank.of(VECTORS).sample(size)


def test_sample_keys_depend_on_the_text_of_the_id_and_the_seed():
    identifiers = (1, 2, 12, "a", UUID(int=7))
    keys = {sample_key(identifier, seed) for identifier in identifiers for seed in (0, 1)}
    assert len(keys) == 10
    assert all(0 <= key < 2**64 for key in keys)
    # a client may hand out an id as text or as a UUID object: it is the same item
    assert sample_key(UUID(int=7), 1) == sample_key(str(UUID(int=7)), 1)
    assert sample_key(12, 1) == sample_key("12", 1)


def test_sample_keys_stay_what_they_are_so_that_a_seed_means_the_same_sample_tomorrow():
    assert [sample_key(identifier, 3) for identifier in (1, "a")] == [4081523165594066768, 17144405879716790563]


def test_sample_keys_draw_every_id_about_equally_often():
    draws = [min(range(10), key=lambda item: sample_key(item, seed)) for seed in range(2000)]
    assert np.bincount(draws, minlength=10).min() > 120


# --- fingerprints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [VECTORS.copy(), VECTORS.astype(np.float64), VECTORS.tolist(), VECTORS.astype(">f4")])
def test_equal_content_has_an_equal_fingerprint(other):
    assert Bank.of(other).fingerprint == Bank.of(VECTORS).fingerprint


def changed_in_one_value():
    vectors = VECTORS.copy()
    vectors[17, 2] = np.nextafter(vectors[17, 2], np.float32(9))
    return vectors


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(changed_in_one_value(), id="the last bit of one value"),
        pytest.param(VECTORS[::-1], id="another order"),
        pytest.param(VECTORS[:-1], id="one vector fewer"),
        pytest.param(VECTORS.reshape(25, 8), id="another shape"),
    ],
)
def test_changed_content_has_another_fingerprint(other):
    assert Bank.of(other).fingerprint != Bank.of(VECTORS).fingerprint
