"""Run with the Python of an environment that holds nothing but the built wheel: the core is there, and light."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np

import dbnorm_vdb

assert "site-packages" in dbnorm_vdb.__file__, dbnorm_vdb.__file__
for name in (
    "torch",
    "qdrant_client",
    "pymilvus",
    "typer",
    "rich",
    "scipy",
    "jinja2",
    "PIL",
    "ir_measures",
    "opentelemetry",
):
    assert importlib.util.find_spec(name) is None, f"the core pulls in {name}"
for name in ("dbnorm_vdb", "dbnorm_qdrant", "dbnorm_milvus"):
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is not in the wheel"
    assert (Path(spec.submodule_search_locations[0]) / "py.typed").is_file(), f"{name} is not typed"
templates = Path(dbnorm_vdb.__file__).parent / "report" / "templates"
assert {file.name for file in templates.iterdir()} >= {"report.html", "parts.html", "report.css"}, "no templates"
assert importlib.util.find_spec("adapters") is None, "'adapters' is a folder, not a package"

scores = dbnorm_vdb.normalize(np.eye(3), query_bank=np.ones((2, 3)), method="is")
assert scores.argmax(axis=1).tolist() == [0, 1, 2]
assert len(importlib.import_module("dbnorm_vdb.demo").load_pictures().test.records) == 1872

command = Path(sys.executable).with_name("dbnorm-vdb")
result = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
assert result.returncode == 1, result
assert 'pip install "dbnorm-vdb[cli]"' in result.stderr, result.stderr
print("the wheel is light, typed and whole")
