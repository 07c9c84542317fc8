"""Query and gallery banks: load, validate, sample, fingerprint.

A bank is a sample of vectors from the distribution that a collection meets: the *query bank* holds queries like
those it is asked, the *gallery bank* items like those it stores (Wang et al., EMNLP 2023, section 3).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.errors import (
    BankFileError,
    DimensionMismatchError,
    EmptyBankError,
    InvalidVectorsError,
    MissingDependencyError,
    NonFiniteVectorError,
    ZeroVectorError,
)
from dbnorm_vdb.parameters import check_count

if TYPE_CHECKING:
    from collections.abc import Sequence

Vectors: TypeAlias = npt.NDArray[np.float32]

_LARGEST_SQUARE = 1e36


def check_vectors(
    vectors: npt.ArrayLike, *, what: str, dimension: int | None = None, allow_zero: bool = False
) -> Vectors:
    """Return `vectors` as a C-ordered float32 array of shape (n, d), or say what is wrong with them.

    Args:
        vectors: (n, d), any real number type.
        what: how the message names them, e.g. "query bank".
        dimension: the `d` they must have; None accepts any.
        allow_zero: accept rows of length zero.

    Raises:
        InvalidVectorsError: not two-dimensional, ragged or not numeric.
        DimensionMismatchError: `d` is not `dimension`.
        NonFiniteVectorError: NaN or infinite values (also those that overflow float32).
        ZeroVectorError: rows of length zero.
    """
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(as_array(vectors, what=what), dtype=np.float32)
    if array.ndim != 2:
        raise InvalidVectorsError(
            f"{what}: expected an (n, d) array, got shape {array.shape}; a single vector v is np.atleast_2d(v)"
        )
    if dimension is not None and array.shape[1] != dimension:
        raise DimensionMismatchError(
            f"{what}: vectors have {array.shape[1]} dimensions, the collection has {dimension};"
            " embed the bank with the model that embedded the collection"
        )
    bad = ~usable_vectors(array)
    if bad.any():
        raise NonFiniteVectorError(
            f"{what}: {int(bad.sum())} of {len(array)} vectors hold NaN or infinite values, or are longer than 1e18"
            f" (first: row {int(bad.argmax())}); remove or re-embed them"
        )
    zero = ~array.any(axis=1)
    if zero.any() and not allow_zero:
        raise ZeroVectorError(
            f"{what}: {int(zero.sum())} of {len(array)} vectors are all zeros (first: row {int(zero.argmax())});"
            " they have no direction: remove or re-embed them"
        )
    return array


def usable_vectors(vectors: Vectors) -> npt.NDArray[np.bool_]:
    """(n,) whether a vector is finite, and short enough that inner products stay in the range of float32."""
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    usable: npt.NDArray[np.bool_] = np.asarray(squares < _LARGEST_SQUARE)  # false for NaN
    return usable


def dense_vectors(values: Sequence[Any], dimension: int) -> tuple[list[int], Vectors]:
    """Which of the values are dense vectors of that dimension, and these as an (n, d) array.

    The others (none, sparse, multi-vectors, of another dimension) are for whoever stores them to accept or refuse.
    """
    rows: list[int] = []
    found: list[Vectors] = []
    for row, value in enumerate(values):
        if isinstance(value, (list, tuple, np.ndarray)):
            with contextlib.suppress(TypeError, ValueError, OverflowError), np.errstate(over="ignore"):
                vector = np.asarray(value, dtype=np.float32)
                if vector.shape == (dimension,):
                    rows.append(row)
                    found.append(vector)
    return rows, np.array(found, dtype=np.float32).reshape(len(rows), dimension)


def as_array(values: npt.ArrayLike, *, what: str) -> npt.NDArray[Any]:
    """`values` as an array of real numbers, or InvalidVectorsError if they are ragged or of another type."""
    try:
        array = np.asarray(values)
        if array.dtype == object:
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidVectorsError(f"{what}: expected an array of real numbers, got {error}") from error
    if array.dtype.kind not in "fiu" and array.size:
        first = array.reshape(-1)[0].item()
        raise InvalidVectorsError(f"{what}: expected an array of real numbers, got {array.dtype} such as {first!r}")
    return array


@dataclass(frozen=True, eq=False)
class Bank:
    """A validated bank of vectors. Build one with `Bank.of`.

    Attributes:
        vectors: (n, d) float32, finite, no zero rows, read-only.
        source: where it came from, for messages and `status`.
    """

    vectors: Vectors
    source: str = field(default="array")

    @classmethod
    def of(
        cls,
        bank: Bank | npt.ArrayLike | str | os.PathLike[str],
        *,
        what: str = "bank",
        dimension: int | None = None,
        key: str | None = None,
    ) -> Bank:
        """Build a bank from an (n, d) array, a path (`.npy`, `.npz`, `.parquet`) or another bank.

        Args:
            bank: the vectors, or where they are.
            what: how messages name the bank.
            dimension: the dimension its vectors must have.
            key: the array of an `.npz` file or the column of a `.parquet` file; may be left out when there is one.

        Raises:
            BankFileError: the file is missing, of another type, or holds several arrays and no `key` was given.
            EmptyBankError: there are no vectors.
            InvalidVectorsError: and its kinds, see `check_vectors`.
        """
        if isinstance(bank, Bank):
            source, raw = bank.source, bank.vectors
        elif isinstance(bank, (str, os.PathLike)):
            source, raw = Path(bank).name, _load(Path(bank), key)
        else:
            source, raw = "array", as_array(bank, what=what)
        if raw.size == 0:
            raise EmptyBankError(f"{what}: no vectors in it (shape {raw.shape}); give at least one")
        vectors = check_vectors(raw, what=what, dimension=dimension)
        if not isinstance(bank, Bank) and np.may_share_memory(vectors, raw):
            vectors = vectors.copy()  # what the caller does with the array later must not change the bank
        return cls(_read_only(vectors), source)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dimension(self) -> int:
        """The number of dimensions `d`."""
        return int(self.vectors.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the shape and the float32 values: equal for equal banks, whatever file they came from."""
        digest = hashlib.sha256(repr(self.vectors.shape).encode())
        digest.update(self.vectors.astype("<f4", copy=False).tobytes())
        return digest.hexdigest()

    def sample_rows(self, size: int, *, seed: int = 0) -> npt.NDArray[np.intp]:
        """The rows of the vectors that `sample` draws, ascending."""
        check_count(size, what="sample size")
        if size >= len(self):
            return np.arange(len(self))
        return np.sort(np.random.default_rng(seed).choice(len(self), size=size, replace=False))

    def sample(self, size: int, *, seed: int = 0) -> Bank:
        """A bank of `size` of the vectors, drawn without replacement and kept in order; all of them if fewer."""
        chosen = self.sample_rows(size, seed=seed)
        if len(chosen) == len(self):
            return self
        return Bank(_read_only(self.vectors[chosen]), f"{self.source} ({size} of {len(self)}, seed {seed})")


def sample_key(identifier: object, seed: int) -> int:
    """A pseudo-random 64-bit key of an item: the items with the `n` smallest keys are a seeded sample of size `n`.

    It depends on the id and the seed alone, so the sample is the same in whatever order the pages come and on
    whatever engine the collection lives.
    """
    text = f"{seed}:{identifier}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _read_only(vectors: Vectors) -> Vectors:
    vectors.flags.writeable = False
    return vectors


def _load(path: Path, key: str | None) -> npt.NDArray[Any]:
    if not path.is_file():
        raise BankFileError(f"bank file {str(path)!r} does not exist")
    readers = {".npy": _load_npy, ".npz": _load_npz, ".parquet": _load_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BankFileError(f"bank file {str(path)!r}: unknown type {path.suffix!r}; use {', '.join(readers)}")
    try:
        return reader(path, key)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, (BankFileError, InvalidVectorsError)):
            raise
        raise BankFileError(f"bank file {str(path)!r} cannot be read: {error}") from error


def _load_npy(path: Path, key: str | None) -> npt.NDArray[Any]:
    if key is not None:
        raise BankFileError(f"bank file {str(path)!r} holds one array; key {key!r} has no meaning there")
    with path.open("rb") as file:
        loaded: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return loaded


def _load_npz(path: Path, key: str | None) -> npt.NDArray[Any]:
    with path.open("rb") as file:  # np.load leaves a damaged archive open
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise BankFileError(f"bank file {str(path)!r} holds one array and is no .npz archive; name it .npy")
        with archive:
            loaded: npt.NDArray[Any] = archive[_choose(path, key, archive.files)]
    return loaded


def _load_parquet(path: Path, key: str | None) -> npt.NDArray[Any]:
    try:
        import pyarrow.parquet as parquet
        import pyarrow.types as types
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "parquet", "reading a .parquet bank") from error
    schema = parquet.read_schema(path)
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    columns = [column.name for column in schema if any(is_list(column.type) for is_list in lists)]
    column = parquet.read_table(path, columns=[_choose(path, key, columns)]).column(0).combine_chunks()
    if column.null_count:
        raise InvalidVectorsError(f"bank file {str(path)!r}: {column.null_count} of {len(column)} vectors are null")
    lengths = {int(length) for length in column.value_lengths().unique().to_pylist()} if len(column) else set()
    if len(lengths) > 1:
        raise InvalidVectorsError(f"bank file {str(path)!r}: vectors of different lengths {sorted(lengths)[:5]}")
    values: npt.NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1) if len(column) else np.empty((0, 0), dtype=np.float32)


def _choose(path: Path, key: str | None, names: Sequence[str]) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return str(key)
    asked = "name one" if key is None else f"{key!r} is not among them"
    raise BankFileError(f"bank file {str(path)!r} holds {len(names)} arrays ({', '.join(names)}): {asked} (key=...)")
