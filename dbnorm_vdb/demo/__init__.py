"""The main job on real data: hubs in text-to-picture search, before and after, on the embedded engines."""

from dbnorm_vdb.demo.pictures import Pictures, Split, load_pictures
from dbnorm_vdb.demo.run import METHODS, DemoReport, EngineReport, Example, MethodReport, run_demo

__all__ = [
    "METHODS",
    "DemoReport",
    "EngineReport",
    "Example",
    "MethodReport",
    "Pictures",
    "Split",
    "load_pictures",
    "run_demo",
]
