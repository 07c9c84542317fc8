"""Banks from `.npy` and `.npz` files; and what is wrong with a file that cannot be one."""

import re
from pathlib import Path

import numpy as np
import pytest

from dbnorm_vdb import (
    Bank,
    BankFileError,
    EmptyBankError,
    InvalidVectorsError,
    NonFiniteVectorError,
    ZeroVectorError,
)

VECTORS = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
OTHERS = VECTORS[:7] * 2


@pytest.fixture
def folder(tmp_path):
    """A folder with the same vectors in a `.npy` file, in a `.npz` file of one array, and in one of two."""
    np.save(tmp_path / "bank.npy", VECTORS)
    np.savez(tmp_path / "bank.npz", text=VECTORS)
    np.savez_compressed(tmp_path / "both.npz", text=VECTORS, image=OTHERS)
    return tmp_path


@pytest.mark.parametrize("name", ["bank.npy", "bank.npz"])
@pytest.mark.parametrize("as_path", [str, Path], ids=["text", "Path"])
def test_a_file_of_one_array_needs_no_key(folder, name, as_path):
    bank = Bank.of(as_path(folder / name))
    np.testing.assert_array_equal(bank.vectors, VECTORS)
    assert bank.source == name
    assert bank.fingerprint == Bank.of(VECTORS).fingerprint
    assert not bank.vectors.flags.writeable


def test_the_suffix_may_be_in_capitals(folder):
    (folder / "bank.npy").rename(folder / "BANK.NPY")
    assert len(Bank.of(folder / "BANK.NPY")) == 50


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_a_file_may_hold_another_number_type(tmp_path, dtype):
    whole = np.arange(1, 9, dtype=dtype).reshape(4, 2)
    np.save(tmp_path / "bank.npy", whole)
    np.testing.assert_array_equal(Bank.of(tmp_path / "bank.npy").vectors, whole)


def test_a_key_picks_one_of_several_arrays(folder):
    np.testing.assert_array_equal(Bank.of(folder / "both.npz", key="text").vectors, VECTORS)
    np.testing.assert_array_equal(Bank.of(folder / "both.npz", key="image").vectors, OTHERS)
    np.testing.assert_array_equal(Bank.of(folder / "bank.npz", key="text").vectors, VECTORS)


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("both.npz", None, r"both.npz' holds 2 arrays \(text, image\): name one \(key="),
        ("both.npz", "sound", r"both.npz' holds 2 arrays \(text, image\): 'sound' is not among them"),
        ("bank.npz", "sound", r"bank.npz' holds 1 arrays \(text\): 'sound' is not among them"),
        ("bank.npy", "text", r"bank.npy' holds one array; key 'text' has no meaning"),
        ("absent.npy", None, r"absent.npy' does not exist"),
    ],
)
def test_a_file_that_leaves_a_question_open_says_which(folder, name, key, message):
    with pytest.raises(BankFileError, match=message):
        Bank.of(folder / name, key=key)


def test_a_folder_is_not_a_bank_file(tmp_path):
    with pytest.raises(BankFileError, match="does not exist"):
        Bank.of(tmp_path)


@pytest.mark.parametrize("name", ["bank.csv", "bank", "bank.npy.gz"])
def test_an_unknown_type_of_file_names_the_known_ones(tmp_path, name):
    (tmp_path / name).write_bytes(b"1,2,3")
    with pytest.raises(BankFileError, match=rf"unknown type '{Path(name).suffix}'; use .npy, .npz, .parquet"):
        Bank.of(tmp_path / name)


def cut(content):
    return content[: len(content) // 2]


def flipped(content):
    """`content` with the bits of one byte of the first vector flipped."""
    place = content.index(VECTORS[0].tobytes()) + 5
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("source", "damage", "name"),
    [
        pytest.param("bank.npy", cut, "cut.npy", id="half a npy"),
        pytest.param("bank.npz", cut, "cut.npz", id="half a npz"),
        pytest.param("bank.npz", flipped, "flipped.npz", id="a wrong byte in a npz"),
        pytest.param("bank.npz", bytes, "renamed.npy", id="a npz named npy"),
        pytest.param("bank.npy", bytes, "renamed.npz", id="a npy named npz"),
        *(
            pytest.param("bank.npy", lambda _, text=text: text, f"text.{suffix}", id=f"{label} {suffix}")
            for suffix in ("npy", "npz")
            for label, text in (("empty", b""), ("text as", b"caption,vector\n" * 9))
        ),
    ],
)
def test_a_corrupt_file_is_named_with_what_is_wrong(folder, source, damage, name):
    (folder / name).write_bytes(damage((folder / source).read_bytes()))
    with pytest.raises(BankFileError, match=re.escape(name)):
        Bank.of(folder / name)


def test_a_file_of_python_objects_is_never_unpickled(tmp_path):
    np.save(tmp_path / "bank.npy", np.array([[1.0, "a"]], dtype=object), allow_pickle=True)
    with pytest.raises(BankFileError, match=r"bank\.npy"):
        Bank.of(tmp_path / "bank.npy")


@pytest.mark.parametrize(
    ("vectors", "error"),
    [
        pytest.param(VECTORS[0], InvalidVectorsError, id="one vector"),
        pytest.param(np.array([["a", "b"]]), InvalidVectorsError, id="text"),
        pytest.param(np.array([[np.nan, 1.0]]), NonFiniteVectorError, id="NaN"),
        pytest.param(np.zeros((2, 2)), ZeroVectorError, id="zero rows"),
        pytest.param(np.empty((0, 4)), EmptyBankError, id="empty"),
    ],
)
def test_the_vectors_of_a_file_are_checked_like_any_others(tmp_path, vectors, error):
    np.save(tmp_path / "bank.npy", vectors)
    with pytest.raises(error, match="captions") as raised:
        Bank.of(tmp_path / "bank.npy", what="captions")
    assert raised.type is error
