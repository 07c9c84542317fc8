"""Does it help here? Arms compared on the same queries.

from dbnorm_vdb.evaluation import compare

result = compare(["raw", "dual_is"], queries, qrels="qrels.tsv", adapter=images)
print(result.verdict.headline)
result.save("comparison")
"""

from dbnorm_vdb.evaluation.arms import Arm
from dbnorm_vdb.evaluation.comparing import compare
from dbnorm_vdb.evaluation.judgements import read_judgements
from dbnorm_vdb.evaluation.rankings import read_run
from dbnorm_vdb.evaluation.results import Comparison

__all__ = ["Arm", "Comparison", "compare", "read_judgements", "read_run"]
