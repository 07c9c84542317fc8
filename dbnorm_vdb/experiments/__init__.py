"""Comparing arms on live traffic: split or interleave, log, analyse.

    experiment = Experiment("hubs", arms=("raw", "dual_is"), salt="2025")
    log = EventLog("experiments/hubs")

    arm = experiment.assign(user)
    points = images.query_points(query=vector, limit=10, method=arm).points
    impression = log.impression(experiment, user, arm, [point.id for point in points])
    ...
    log.click(impression, item)
    ...
    print(analyze("experiments/hubs"))

It knows neither a database nor a web framework, and works on ids. `analyze` needs scipy (extra `evaluation`).
"""

from dbnorm_vdb.experiments.analysis import analyze
from dbnorm_vdb.experiments.events import Click, Event, Impression, InterleavedImpression
from dbnorm_vdb.experiments.experiment import Experiment
from dbnorm_vdb.experiments.interleaving import Interleaved
from dbnorm_vdb.experiments.log import EventLog
from dbnorm_vdb.experiments.reading import LinesRead, read_events
from dbnorm_vdb.experiments.report import (
    ArmReport,
    Comparison,
    Estimate,
    ExperimentReport,
    Look,
    Preference,
    SampleRatio,
    Sequential,
)

__all__ = [
    "ArmReport",
    "Click",
    "Comparison",
    "Estimate",
    "Event",
    "EventLog",
    "Experiment",
    "ExperimentReport",
    "Impression",
    "Interleaved",
    "InterleavedImpression",
    "LinesRead",
    "Look",
    "Preference",
    "SampleRatio",
    "Sequential",
    "analyze",
    "read_events",
]
