"""Banks from the list columns of `.parquet` files."""

import sys

import numpy as np
import pytest

from dbnorm_vdb import Bank, BankFileError, EmptyBankError, InvalidVectorsError, MissingDependencyError
from dbnorm_vdb.errors import NonFiniteVectorError

VECTORS = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)


@pytest.fixture
def pa():
    return pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture
def write(pa, tmp_path):
    """A function that writes the columns it is given to a `.parquet` file, and returns its path."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

    def write_columns(row_group_size=None, **columns):
        path = tmp_path / "bank.parquet"
        parquet.write_table(pa.table(columns), path, row_group_size=row_group_size)
        return path

    return write_columns


LIST_TYPES = {
    "list": lambda pa: pa.list_(pa.float32()),
    "large list": lambda pa: pa.large_list(pa.float32()),
    "fixed-size list": lambda pa: pa.list_(pa.float32(), 4),
}


@pytest.fixture(params=LIST_TYPES.values(), ids=LIST_TYPES.keys())
def list_type(request, pa):
    """A column type for vectors of four dimensions."""
    return request.param(pa)


@pytest.mark.parametrize("row_group_size", [None, 7], ids=["one row group", "several"])
def test_a_list_column_holds_the_vectors(pa, write, list_type, row_group_size):
    bank = Bank.of(write(row_group_size, vector=pa.array(VECTORS.tolist(), type=list_type)))
    np.testing.assert_array_equal(bank.vectors, VECTORS)
    assert bank.source == "bank.parquet"
    assert not bank.vectors.flags.writeable
    assert bank.fingerprint == Bank.of(VECTORS).fingerprint


@pytest.mark.parametrize("value_type", ["float64", "float16", "int16"])
def test_the_values_may_be_any_numbers(pa, write, value_type):
    whole = np.arange(1, 9).reshape(4, 2)
    column = pa.FixedSizeListArray.from_arrays(pa.array(whole.ravel().astype(value_type)), 2)
    np.testing.assert_array_equal(Bank.of(write(vector=column)).vectors, whole)


def test_other_columns_do_not_matter(pa, write):
    path = write(id=pa.array(range(50)), caption=pa.array(["a"] * 50), vector=pa.array(VECTORS.tolist()))
    np.testing.assert_array_equal(Bank.of(path).vectors, VECTORS)


def test_a_key_picks_one_of_several_list_columns(pa, write):
    path = write(text=pa.array(VECTORS.tolist()), image=pa.array((VECTORS * 2).tolist()))
    np.testing.assert_array_equal(Bank.of(path, key="image").vectors, VECTORS * 2)
    with pytest.raises(BankFileError, match=r"holds 2 arrays \(text, image\): name one"):
        Bank.of(path)
    with pytest.raises(BankFileError, match="'sound' is not among them"):
        Bank.of(path, key="sound")


def test_a_file_without_a_list_column_is_refused(pa, write):
    path = write(id=pa.array([1, 2]))
    with pytest.raises(BankFileError, match=r"bank\.parquet' holds 0 arrays"):
        Bank.of(path)
    with pytest.raises(BankFileError, match="'id' is not among them"):
        Bank.of(path, key="id")


def test_a_vector_that_is_null_is_refused(pa, write, list_type):
    column = pa.array([*VECTORS[:3].tolist(), None], type=list_type)
    with pytest.raises(InvalidVectorsError, match=r"bank\.parquet': 1 of 4 vectors are null"):
        Bank.of(write(vector=column))


def test_a_value_that_is_null_is_refused(pa, write, list_type):
    column = pa.array([[1.0, 2.0, 3.0, 4.0], [1.0, None, 3.0, 4.0]], type=list_type)
    with pytest.raises(NonFiniteVectorError, match=r"captions: 1 of 2 vectors .*first: row 1"):
        Bank.of(write(vector=column), what="captions")


def test_vectors_of_different_lengths_are_refused(pa, write):
    with pytest.raises(InvalidVectorsError, match=r"bank.parquet': vectors of different lengths \[1, 2\]"):
        Bank.of(write(vector=pa.array([[1.0, 2.0], [3.0]])))


@pytest.mark.parametrize(
    "values", [[["a"], ["b"]], [[[1.0, 2.0]], [[3.0, 4.0]]]], ids=["lists of text", "lists of lists"]
)
def test_lists_of_anything_but_numbers_are_refused(pa, write, values):
    with pytest.raises(InvalidVectorsError, match=r"captions: .*real numbers"):
        Bank.of(write(vector=pa.array(values)), what="captions")


def test_a_column_without_rows_is_an_empty_bank(pa, write, list_type):
    with pytest.raises(EmptyBankError, match="captions: no vectors in it"):
        Bank.of(write(vector=pa.array([], type=list_type)), what="captions")


def test_empty_lists_are_an_empty_bank(pa, write):
    with pytest.raises(EmptyBankError, match="captions: no vectors in it"):
        Bank.of(write(vector=pa.array([[], []], type=pa.list_(pa.float32()))), what="captions")


@pytest.mark.parametrize("content", [b"", b"caption,vector\n" * 9, b"PAR1" * 9], ids=["empty", "text", "only magic"])
def test_a_corrupt_file_is_named_with_what_is_wrong(pa, tmp_path, content):
    (tmp_path / "bank.parquet").write_bytes(content)
    with pytest.raises(BankFileError, match=r"bank\.parquet' cannot be read: "):
        Bank.of(tmp_path / "bank.parquet")


def test_without_pyarrow_the_error_names_the_extra(monkeypatch, tmp_path):
    (tmp_path / "bank.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dbnorm-vdb\[parquet\]"') as raised:
        Bank.of(tmp_path / "bank.parquet")
    assert (raised.value.package, raised.value.extra) == ("pyarrow", "parquet")
