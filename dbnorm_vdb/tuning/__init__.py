"""Finding settings: methods and betas, on labelled queries, or for want of these by hubness."""

from dbnorm_vdb.tuning.grid import BetaInput, Setting
from dbnorm_vdb.tuning.result import HeldOut, Trial, TuneResult
from dbnorm_vdb.tuning.run import DEFAULT_MEASURES, TuneOptions, tune

__all__ = ["DEFAULT_MEASURES", "BetaInput", "HeldOut", "Setting", "Trial", "TuneOptions", "TuneResult", "tune"]
