"""What `import dbnorm_vdb` offers, and what it leaves alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dbnorm_vdb
from dbnorm_vdb import errors

NAMES = {
    "TuneResult",
    "Verdict",
    "Bank",
    "BankDistance",
    "BankStatistics",
    "BiasSummary",
    "Calibration",
    "CollectionStatistics",
    "Explained",
    "ExplainedHit",
    "Explanation",
    "FitSummary",
    "FoldSummary",
    "Hit",
    "Hubness",
    "ItemStatistics",
    "Method",
    "Metric",
    "NnnStatistics",
    "RefreshSummary",
    "Reranked",
    "SinkhornStatistics",
    "Status",
    "StoredState",
    "__version__",
    "k_occurrence",
    "log_partition",
    "measure_hubness",
    "normalize",
    "rerank",
}

# each error, what it is a kind of in this library, and the built-in it may be caught as
ERRORS = {
    "DBNormError": ("DBNormError", Exception),
    "InvalidInputError": ("DBNormError", ValueError),
    "InvalidParameterError": ("InvalidInputError", ValueError),
    "InvalidVectorsError": ("InvalidInputError", ValueError),
    "DimensionMismatchError": ("InvalidVectorsError", ValueError),
    "NonFiniteVectorError": ("InvalidVectorsError", ValueError),
    "ZeroVectorError": ("InvalidVectorsError", ValueError),
    "BankFileError": ("InvalidInputError", ValueError),
    "EmptyBankError": ("InvalidInputError", ValueError),
    "EmptyCollectionError": ("InvalidInputError", ValueError),
    "UnknownVectorError": ("InvalidInputError", ValueError),
    "UnsupportedMetricError": ("InvalidInputError", ValueError),
    "UnsupportedVectorError": ("InvalidInputError", ValueError),
    "UnsupportedCollectionError": ("InvalidInputError", ValueError),
    "UnsupportedMethodError": ("InvalidInputError", ValueError),
    "UnsupportedQueryError": ("InvalidInputError", ValueError),
    "InvalidJudgementsError": ("InvalidInputError", ValueError),
    "InvalidRunError": ("InvalidInputError", ValueError),
    "InvalidTargetError": ("InvalidInputError", ValueError),
    "EventLogError": ("InvalidInputError", ValueError),
    "StatisticsError": ("DBNormError", Exception),
    "NotFittedError": ("StatisticsError", Exception),
    "StatisticsFormatError": ("StatisticsError", Exception),
    "StatisticsMismatchError": ("StatisticsError", Exception),
    "StatisticsTimeoutError": ("StatisticsError", TimeoutError),
    "FitInProgressError": ("StatisticsError", Exception),
    "ForeignDataError": ("StatisticsError", Exception),
    "MissingDependencyError": ("DBNormError", ImportError),
}


def test_the_exported_names_are_these():
    assert set(dbnorm_vdb.__all__) == NAMES | set(ERRORS)
    assert len(set(dbnorm_vdb.__all__)) == len(dbnorm_vdb.__all__)
    for name in dbnorm_vdb.__all__:
        assert hasattr(dbnorm_vdb, name)


def test_every_error_of_the_module_is_exported():
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined == set(ERRORS)


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_has_its_place_in_the_tree_and_its_built_in_base(name):
    error = getattr(dbnorm_vdb, name)
    parent, built_in = ERRORS[name]
    assert error.__module__ == "dbnorm_vdb.errors"
    assert error is dbnorm_vdb.DBNormError or getattr(errors, parent) in error.__bases__
    assert issubclass(error, dbnorm_vdb.DBNormError)
    assert issubclass(error, built_in)
    assert error.__doc__


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = [
        line.lstrip("│├└─ ").split()[0]
        for line in errors.__doc__.splitlines()
        if "Error" in line and "Every" not in line
    ]
    assert drawn == list(ERRORS)


@pytest.mark.parametrize("module", ["dbnorm_vdb", "dbnorm_vdb.fitting, dbnorm_vdb.lookup, dbnorm_vdb.kernels"])
def test_importing_the_core_asks_for_no_engine_client_and_no_optional_package(module):
    script = f"""
import sys

class Watch:
    asked = set()
    def find_spec(self, name, path=None, target=None):
        self.asked.add(name.partition(".")[0])

sys.meta_path.insert(0, Watch())
import {module}
optional = {{"torch", "pyarrow", "scipy", "ir_measures", "jinja2", "PIL", "typer", "rich", "qdrant_client",
            "qdrant_edge", "pymilvus", "milvus_lite", "dbnorm_qdrant", "dbnorm_milvus"}}
assert "numpy" in Watch.asked
print(*sorted(optional & Watch.asked))
"""
    root = str(Path(dbnorm_vdb.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout.split(), done.stderr) == ([], "")


def test_importing_the_core_adds_no_log_handler():
    script = "import logging, dbnorm_vdb; print(logging.getLogger().handlers, logging.getLogger('dbnorm_vdb').handlers)"
    root = str(Path(dbnorm_vdb.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    output = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True, timeout=120)
    assert output.split() == ["[]", "[]"]
