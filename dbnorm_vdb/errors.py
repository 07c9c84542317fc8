"""Every error this library raises. Errors of the database clients pass through unwrapped.

DBNormError
├── InvalidInputError (also ValueError)      the caller's input cannot be used
│   ├── InvalidParameterError                beta, limit, candidates, sizes out of range
│   ├── InvalidVectorsError                  vectors of the wrong shape or type
│   │   ├── DimensionMismatchError           vectors of another dimension than the collection's
│   │   ├── NonFiniteVectorError             NaN or infinite values
│   │   └── ZeroVectorError                  rows of length zero
│   ├── BankFileError                        a bank file that cannot be read as one array
│   ├── EmptyBankError                       a bank without vectors
│   ├── EmptyCollectionError                 a collection without items to fit
│   ├── UnknownVectorError                   a vector name or field the collection lacks, or none where it has several
│   ├── UnsupportedMetricError               a metric without a meaning here (Manhattan, Hamming, Jaccard, ...)
│   ├── UnsupportedVectorError               sparse, binary or multi-vectors
│   ├── UnsupportedCollectionError           a collection with something that `fold` cannot copy
│   ├── UnsupportedMethodError               a method that does not exist, or that the statistics cannot serve
│   ├── UnsupportedQueryError                a kind of query that normalisation has no meaning for
│   ├── InvalidJudgementsError               relevance judgements that cannot be read, or that match nothing
│   ├── InvalidRunError                      ranked results that cannot be read or compared
│   ├── InvalidTargetError                   a command-line URL that names no collection
│   └── EventLogError                        an event log that is not there, or lacks the experiment
├── StatisticsError                          the statistics stored in the database cannot be used
│   ├── NotFittedError                       there are none
│   ├── StatisticsFormatError                they are unreadable, or of another format version
│   ├── StatisticsMismatchError              they belong to another vector, dimension or metric
│   ├── StatisticsTimeoutError               they did not come within the search's timeout (also TimeoutError)
│   ├── FitInProgressError                   another fit of the collection is running
│   └── ForeignDataError                     a name we store under is taken by data that is not ours
└── MissingDependencyError (also ImportError)  an optional package is needed; the message names the extra
"""

from __future__ import annotations


class DBNormError(Exception):
    """Base of all errors raised by this library."""


class InvalidInputError(DBNormError, ValueError):
    """The caller's input cannot be used."""


class InvalidParameterError(InvalidInputError):
    """A number or option is out of its range."""


class InvalidVectorsError(InvalidInputError):
    """Vectors have the wrong shape or type."""


class DimensionMismatchError(InvalidVectorsError):
    """Vectors have another dimension than the collection."""


class NonFiniteVectorError(InvalidVectorsError):
    """Vectors hold NaN or infinite values."""


class ZeroVectorError(InvalidVectorsError):
    """Vectors have rows of length zero."""


class BankFileError(InvalidInputError):
    """A bank file cannot be read as one array of vectors."""


class EmptyBankError(InvalidInputError):
    """A bank holds no vectors."""


class EmptyCollectionError(InvalidInputError):
    """A collection holds no items to fit."""


class UnknownVectorError(InvalidInputError):
    """The collection has no vector of that name, or several and none was named."""


class UnsupportedMetricError(InvalidInputError):
    """The vector's metric has no meaning for normalisation."""


class UnsupportedVectorError(InvalidInputError):
    """The vector is sparse, binary or a multi-vector."""


class UnsupportedCollectionError(InvalidInputError):
    """The collection has something that cannot be copied."""


class UnsupportedMethodError(InvalidInputError):
    """The method does not exist, or the statistics at hand cannot serve it."""


class UnsupportedQueryError(InvalidInputError):
    """Normalisation has no meaning for this kind of query."""


class InvalidJudgementsError(InvalidInputError):
    """Relevance judgements cannot be read, or match no query or no item."""


class InvalidRunError(InvalidInputError):
    """Ranked results cannot be read, or cannot be compared."""


class InvalidTargetError(InvalidInputError):
    """A command-line URL does not name a collection."""


class EventLogError(InvalidInputError):
    """There is no event log, or not the experiment in it."""


class StatisticsError(DBNormError):
    """The statistics stored in the database cannot be used."""


class NotFittedError(StatisticsError):
    """The collection has no statistics yet."""


class StatisticsFormatError(StatisticsError):
    """The stored statistics are unreadable or of another format version."""


class StatisticsMismatchError(StatisticsError):
    """The stored statistics belong to another vector, dimension or metric."""


class StatisticsTimeoutError(StatisticsError, TimeoutError):
    """The statistics, or what else normalising needs, did not come within the search's timeout."""


class FitInProgressError(StatisticsError):
    """Another fit of the collection is running."""


class ForeignDataError(StatisticsError):
    """A name this library stores under is taken by data that is not its own."""


class MissingDependencyError(DBNormError, ImportError):
    """An optional package is missing; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs the package {package!r}: pip install "dbnorm-vdb[{extra}]"')
        self.package = package
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str, str]]:
        return type(self), (self.package, self.extra, self.purpose)
