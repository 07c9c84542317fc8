"""The main job on real data: hubs in text-to-picture search, before and after, on the embedded engines."""

from dbnorm_vdb.demo.pictures import Pictures, Split, load_pictures
from dbnorm_vdb.demo.report import IMAGE_FIELD, write_demo_report
from dbnorm_vdb.demo.run import METHODS, DemoReport, EngineReport, Example, MethodReport, run_demo

__all__ = [
    "IMAGE_FIELD",
    "METHODS",
    "DemoReport",
    "EngineReport",
    "Example",
    "MethodReport",
    "Pictures",
    "Split",
    "load_pictures",
    "run_demo",
    "write_demo_report",
]
