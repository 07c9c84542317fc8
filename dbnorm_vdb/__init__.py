"""Hubness reduction for vector databases: Dual Bank Normalization on Qdrant and Milvus.

The adapters are import packages of their own, `dbnorm_qdrant` and `dbnorm_milvus`.
"""

from dbnorm_vdb.banks import Bank
from dbnorm_vdb.errors import (
    BankFileError,
    DBNormError,
    DimensionMismatchError,
    EmptyBankError,
    EmptyCollectionError,
    EventLogError,
    FitInProgressError,
    ForeignDataError,
    InvalidInputError,
    InvalidJudgementsError,
    InvalidParameterError,
    InvalidRunError,
    InvalidTargetError,
    InvalidVectorsError,
    MissingDependencyError,
    NonFiniteVectorError,
    NotFittedError,
    StatisticsError,
    StatisticsFormatError,
    StatisticsMismatchError,
    StatisticsTimeoutError,
    UnknownVectorError,
    UnsupportedCollectionError,
    UnsupportedMethodError,
    UnsupportedMetricError,
    UnsupportedQueryError,
    UnsupportedVectorError,
    ZeroVectorError,
)
from dbnorm_vdb.hubness import Hubness, k_occurrence, measure_hubness
from dbnorm_vdb.kernels import log_partition
from dbnorm_vdb.methods import Method
from dbnorm_vdb.normalization import normalize
from dbnorm_vdb.reranking import Reranked, rerank
from dbnorm_vdb.searching import Explained, ExplainedHit, Explanation
from dbnorm_vdb.statistics import (
    BankStatistics,
    BiasSummary,
    Calibration,
    CollectionStatistics,
    ItemStatistics,
    Metric,
    NnnStatistics,
    SinkhornStatistics,
    StoredState,
)
from dbnorm_vdb.store import Hit
from dbnorm_vdb.summaries import FitSummary, FoldSummary, RefreshSummary, Status
from dbnorm_vdb.tuning import TuneResult
from dbnorm_vdb.verdicts import BankDistance, Verdict
from dbnorm_vdb.version import __version__

__all__ = [
    "Bank",
    "BankDistance",
    "BankFileError",
    "BankStatistics",
    "BiasSummary",
    "Calibration",
    "CollectionStatistics",
    "DBNormError",
    "DimensionMismatchError",
    "EmptyBankError",
    "EmptyCollectionError",
    "EventLogError",
    "Explained",
    "ExplainedHit",
    "Explanation",
    "FitInProgressError",
    "FitSummary",
    "FoldSummary",
    "ForeignDataError",
    "Hit",
    "Hubness",
    "InvalidInputError",
    "InvalidJudgementsError",
    "InvalidParameterError",
    "InvalidRunError",
    "InvalidTargetError",
    "InvalidVectorsError",
    "ItemStatistics",
    "Method",
    "Metric",
    "MissingDependencyError",
    "NnnStatistics",
    "NonFiniteVectorError",
    "NotFittedError",
    "RefreshSummary",
    "Reranked",
    "SinkhornStatistics",
    "StatisticsError",
    "StatisticsFormatError",
    "StatisticsMismatchError",
    "StatisticsTimeoutError",
    "Status",
    "StoredState",
    "TuneResult",
    "UnknownVectorError",
    "UnsupportedCollectionError",
    "UnsupportedMethodError",
    "UnsupportedMetricError",
    "UnsupportedQueryError",
    "UnsupportedVectorError",
    "Verdict",
    "ZeroVectorError",
    "__version__",
    "k_occurrence",
    "log_partition",
    "measure_hubness",
    "normalize",
    "rerank",
]
