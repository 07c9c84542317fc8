"""The examples of other frameworks run, and show what normalisation does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "frameworks"
NEEDS = {
    "haystack_on_milvus": "milvus_haystack",
    "haystack_on_qdrant": "haystack_integrations.document_stores.qdrant",
    "langchain_on_milvus": "langchain_milvus",
    "langchain_on_qdrant": "langchain_qdrant",
    "llama_index_on_milvus": "llama_index.vector_stores.milvus",
    "llama_index_on_qdrant": "llama_index.vector_stores.qdrant",
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*_on_*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_what_hubs_hid_is_found(name: str) -> None:
    pytest.importorskip(NEEDS[name])
    script = str(FOLDER / f"{name}.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    raw, normalised = done.stdout.split("normalised:")
    assert "✓" in normalised
    assert "✓" not in raw
