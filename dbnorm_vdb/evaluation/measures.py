"""Effectiveness measures: those of ir-measures, the rank of the first relevant item, and recall at every depth.

Measures mean what they mean to ir-measures and `trec_eval`. In particular `R@k` is recall, the share of a query's
relevant items among its first k; papers on cross-modal retrieval with several captions for an image often call
`Success@k` that, whether any of them is there. With one relevant item a query the two are the same.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.errors import InvalidParameterError, MissingDependencyError
from dbnorm_vdb.evaluation.judgements import Judgements
from dbnorm_vdb.evaluation.rankings import EMPTY, Run
from dbnorm_vdb.evaluation.results import MeasureInfo

DEFAULT_MEASURES = ("R@1", "R@5", "R@10", "RR", "nDCG@10", "AP", "MedianRank", "MeanRank")

Floats = npt.NDArray[np.float64]

_RANKS = {"MedianRank": "median", "MeanRank": "mean"}
_PARTS = re.compile(r"\s*(?P<name>[^\W\d]\w*)\s*(\((?P<options>.*)\))?\s*(@\s*(?P<cutoff>\d+(\.\d+)?))?\s*")
_MEANINGS = {
    "R": "Recall: the share of a query's relevant items that are among its first {cutoff}.",
    "P": "Precision: the share of the first {cutoff} results that are relevant.",
    "RR": "Reciprocal rank of the first relevant item; 0 where none is found.",
    "nDCG": "Normalised discounted cumulative gain of the first {cutoff}: graded relevance, earlier counts more.",
    "AP": "Average precision: the mean of the precision at each relevant item, 0 for those not found.",
    "Success": "Whether any relevant item is among the first {cutoff} (R@{cutoff} of many cross-modal papers).",
}


class Measure(NamedTuple):
    """A measure that can be taken.

    Attributes:
        info: what a reader is told.
        cutoff: how many results it looks at; None for all.
        native: ir-measures' own object; None for the ranks.
    """

    info: MeasureInfo
    cutoff: int | None
    native: Any


def parse_measures(names: Sequence[str], depth: int) -> list[Measure]:
    """The measures of these names.

    Args:
        names: as ir-measures writes them, e.g. "nDCG@10", "AP(rel=2)", "Success@5", and "MedianRank", "MeanRank".
        depth: how many results of each query there will be, at most.

    Raises:
        InvalidParameterError: no such measure, none at all, one twice, or one that looks deeper than `depth`.
        MissingDependencyError: ir-measures is not installed.
    """
    if isinstance(names, str) or not len(names):
        raise InvalidParameterError(f"measures must be a list of names such as {DEFAULT_MEASURES}, got {names!r}")
    measures = [_parse(name, depth) for name in names]
    found = [measure.info.name for measure in measures]
    twice = [name for name in found if found.count(name) > 1]
    if twice:
        raise InvalidParameterError(f"measure {twice[0]!r} is named twice")
    deep = [measure for measure in measures if measure.cutoff is not None and measure.cutoff > depth]
    if deep:
        raise InvalidParameterError(
            f"{deep[0].info.name} looks at {deep[0].cutoff} results, but there are {depth} of a query; raise depth"
        )
    return measures


def _parse(name: str, depth: int) -> Measure:
    if name in _RANKS:
        statistic = "Median" if name == "MedianRank" else "Mean"
        meaning = f"{statistic} rank of the first relevant item; {depth + 1} where it is not among the first {depth}."
        info = MeasureInfo(
            name=name, meaning=meaning, statistic="median" if name == "MedianRank" else "mean", larger_is_better=False
        )
        return Measure(info, None, None)
    native = _native(name)
    cutoff = native["cutoff"] if "cutoff" in native.SUPPORTED_PARAMS else None
    known = isinstance(cutoff, int)
    template = _MEANINGS.get(native.NAME)
    meaning = template.format(cutoff=cutoff if known else depth) if template else _first_sentence(native)
    return Measure(MeasureInfo(name=str(native), meaning=meaning), cutoff if known else None, native)


def _native(name: str) -> Any:
    """ir-measures' measure of that name.

    Its own parser is not used: it needs `ast.Num`, which is gone from Python 3.14.
    """
    ir_measures = _ir_measures()
    parts = _PARTS.fullmatch(name) if isinstance(name, str) else None
    registry = ir_measures.measures.registry
    if parts is None or parts["name"] not in registry:
        raise InvalidParameterError(
            f"unknown measure {name!r}; there are {', '.join(_RANKS)}, and those of ir-measures:"
            f" {', '.join(sorted(registry))}, with a cutoff as in nDCG@10"
        )
    kind = registry[parts["name"]]
    try:
        call = ast.parse(f"f({parts['options'] or ''})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args:
            raise ValueError("options must be named")
        options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        if parts["cutoff"]:
            options[kind.AT_PARAM] = ast.literal_eval(parts["cutoff"])
        if options.get("cutoff", 1) < 1:
            raise ValueError("the cutoff must be at least 1")
        missing = [key for key, param in kind.SUPPORTED_PARAMS.items() if param.required and key not in options]
        if missing:
            raise ValueError(f"it needs {' and '.join(missing)}; R@10 is R(cutoff=10)")
        measure = kind(**options)
        measure.validate_params()
        ir_measures.DefaultPipeline.evaluator([measure], {})
        if not isinstance(measure.aggregator(), type(ir_measures.AP.aggregator())):
            raise ValueError("it is a count of all queries, not a mean over them")
    except (ValueError, SyntaxError, TypeError, KeyError, AssertionError) as error:
        raise InvalidParameterError(f"measure {name!r} cannot be taken: {error}") from error
    return measure


def _ir_measures() -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise MissingDependencyError("ir-measures", "evaluation", "measuring with judgements") from error
    return ir_measures


def _first_sentence(native: Any) -> str:
    text = " ".join((inspect.getdoc(type(native)) or native.NAME).split())
    return text.split(". ")[0].rstrip(".") + "."


def values_by_query(measures: Sequence[Measure], judgements: Judgements, run: Run, *, depth: int) -> dict[str, Floats]:
    """The value of each measure for each judged query, in the order of `judgements`: (n,) by the measure's name.

    A query without results gets what ir-measures gives it, 0.
    """
    taken = {measure.info.name: np.zeros(len(judgements)) for measure in measures}
    natives = {measure.native: measure.info.name for measure in measures if measure.native is not None}
    if natives:
        # queries by number, since some of ir-measures' providers refuse other keys, and items by rank, not by score:
        # equal scores must not change the order that the arm returned
        graded = {str(row): grades for row, grades in enumerate(judgements.values())}
        found = (run.get(query, EMPTY).items for query in judgements)
        ranked = {str(row): _by_rank(items) for row, items in enumerate(found) if items}
        evaluator = _ir_measures().DefaultPipeline.evaluator(list(natives), graded)
        for metric in evaluator.iter_calc(ranked):
            taken[natives[metric.measure]][int(metric.query_id)] = metric.value
    ranks = np.array([rank or depth + 1 for rank in first_relevant_ranks(judgements, run)], dtype=np.float64)
    return {name: ranks if name in _RANKS else values for name, values in taken.items()}


def _by_rank(items: Sequence[str]) -> dict[str, float]:
    return {item: float(len(items) - rank) for rank, item in enumerate(items)}


def first_relevant_ranks(judgements: Judgements, run: Run) -> list[int | None]:
    """The rank of the first item of grade 1 or more, for each judged query; None where none was found."""
    return [
        next((rank for rank, item in enumerate(run.get(query, EMPTY).items, 1) if grades.get(item, 0) > 0), None)
        for query, grades in judgements.items()
    ]


def recall_curve(judgements: Judgements, run: Run, *, depth: int) -> Floats:
    """(depth,) mean R@k for k from 1; queries without a relevant item count as 0, as for ir-measures."""
    found = np.zeros(depth)
    for query, grades in judgements.items():
        relevant = {item for item, grade in grades.items() if grade > 0}
        for rank, item in enumerate(run.get(query, EMPTY).items[:depth]):
            if item in relevant:
                found[rank] += 1 / len(relevant)
    curve: Floats = np.cumsum(found) / max(len(judgements), 1)
    return curve


def relevant_count(grades: Mapping[str, int]) -> int:
    """How many of the items are relevant."""
    return sum(grade > 0 for grade in grades.values())
