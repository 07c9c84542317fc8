"""Compare arms on the same queries: search, measure, test, and say what came out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from numbers import Real
from typing import Any

import numpy.typing as npt

from dbnorm_vdb.errors import InvalidJudgementsError, InvalidParameterError, InvalidRunError
from dbnorm_vdb.evaluation.agreement import RBO_P, agreement_of
from dbnorm_vdb.evaluation.arms import ArmInput, ArmSearch, CollectionSearch, RunSearch, Searchable, ready_arms
from dbnorm_vdb.evaluation.examples import choose_examples, collections_of
from dbnorm_vdb.evaluation.judgements import Judgements, Relevant, read_judgements, relevance_of_rows
from dbnorm_vdb.evaluation.latency import measure_latency, spread
from dbnorm_vdb.evaluation.measures import (
    DEFAULT_MEASURES,
    Measure,
    parse_measures,
    recall_curve,
    relevant_count,
    values_by_query,
)
from dbnorm_vdb.evaluation.occurrences import hubness_of_run
from dbnorm_vdb.evaluation.queries import Queries, some_of
from dbnorm_vdb.evaluation.rankings import Run
from dbnorm_vdb.evaluation.results import ArmResult, Comparison, Latency, QuerySet, Settings, Windows
from dbnorm_vdb.evaluation.tables import Table
from dbnorm_vdb.evaluation.testing import Values, estimate_and_test
from dbnorm_vdb.evaluation.verdict import judge
from dbnorm_vdb.evaluation.windows import measure_windows
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.version import __version__

Progress = Callable[[str, int, int], None]

_BATCH = 256
_PREFERRED = "nDCG@10"


def compare(
    arms: Mapping[str, ArmInput] | Sequence[ArmInput],
    queries: npt.ArrayLike | None = None,
    qrels: Table | None = None,
    *,
    adapter: Searchable | None = None,
    relevant: Relevant | None = None,
    keys: Sequence[Any] | None = None,
    texts: Sequence[str] | None = None,
    measures: Sequence[str] = DEFAULT_MEASURES,
    primary: str | None = None,
    baseline: str | None = None,
    limit: int = 10,
    depth: int = 100,
    item_count: int | None = None,
    resamples: int = 10_000,
    confidence: float = 0.95,
    latency_queries: int = 100,
    window_queries: int = 0,
    examples: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Compare arms on the same queries.

    Args:
        arms: two or more, by name or in a sequence: methods of `adapter` as text (`"raw"`, `"dual_is,candidates=200"`),
            `Arm`s, adapters, callables from (m, d) query vectors to m rankings, or saved runs (a `Path`, a data frame,
            a mapping by query key, a sequence with a ranking for each query; see `evaluation.rankings`).
        queries: (n, d) vectors; may be left out if all arms are saved runs.
        qrels: relevance judgements by query key, in any form that `evaluation.judgements.read_judgements` takes.
            Without them there is everything that needs none: hubness, latency, agreement.
        adapter: whose methods the text arms name.
        relevant: instead of `qrels`, what is relevant to each query row: an id, ids, or a mapping of ids to grades.
        keys: of the n queries; the row numbers from "0", if left out.
        texts: what the n queries say, for whoever reads the examples.
        measures: names as ir-measures writes them, and `MedianRank` and `MeanRank`, the rank of the first relevant item
            (`depth + 1` where it is not found: a mean is then a lower bound).
        primary: the measure that decides; `nDCG@10` if it is measured, else the first.
        baseline: the arm that the others are compared with; the first, if left out.
        limit: results that a user sees: of hubness, latency, overlap and examples. An arm re-ranks the window that a
            search for `limit` results has; below it results are in the engine's order.
        depth: results of each query that the measures see, at least the deepest cutoff.
        item_count: items that could be found, for the hubness of callables and runs; adapters know theirs.
        resamples: of bootstrap and permutation tests.
        confidence: of the intervals; 1 minus it is the level of the tests.
        latency_queries: queries to time, spread over all; 0 for none.
        window_queries: queries, spread over all, for which to see what windows of other sizes hold and certify.
        examples: queries to keep with their results, most improved and most harmed, for each arm.
        seed: of the resampling.
        progress: called with a stage, how many are done, and how many there are.

    Raises:
        InvalidInputError: and its kinds: arms, queries, judgements or options that cannot be used, judgements that
            match no query or no item, an arm that finds nothing.
        NotFittedError: a method of a collection without statistics.
        MissingDependencyError: judgements are given and ir-measures (extra `evaluation`) is not installed.
    """
    report = progress or _silent
    check_confidence(confidence)
    for count, what in ((limit, "limit"), (depth, "depth"), (resamples, "resamples")):
        check_count(count, what=what)
    for count, what in (
        (latency_queries, "latency_queries"),
        (window_queries, "window_queries"),
        (examples, "examples"),
        (seed, "seed"),
    ):
        check_count(count, what=what, least=0)
    if item_count is not None:
        check_count(item_count, what="item_count")
    if depth < limit:
        raise InvalidParameterError(f"depth={depth} is less than limit={limit}; it has to be at least as much")
    asked = Queries.of(queries, keys, texts)
    searches = ready_arms(arms, adapter, asked.keys, limit=limit)
    asked = asked.completed(searches)
    base = _baseline(baseline, searches)
    judged, unmatched = _judgements(qrels, relevant, asked)
    taken = parse_measures(measures, depth) if judged else []
    settings = Settings(
        limit=limit,
        depth=depth,
        primary=_primary(primary, taken),
        resamples=resamples,
        confidence=confidence,
        rbo_p=RBO_P,
        seed=seed,
        latency_queries=min(latency_queries, len(asked.names)),
    )
    runs = {search.name: _search(search, asked, depth, report) for search in searches}
    _check_items(judged, runs)
    report("measuring", 0, 1)
    described = QuerySet(
        keys=asked.names,
        texts=asked.texts,
        judged=[row for row, key in enumerate(asked.names) if key in judged],
        without_relevant=sum(not relevant_count(grades) for grades in judged.values()),
        unmatched=unmatched,
    )
    infos = [measure.info for measure in taken]
    values: Values = {
        name: values_by_query(taken, judged, run, depth=depth) if judged else {} for name, run in runs.items()
    }
    estimates, differences = estimate_and_test(values, infos, base, settings) if judged else ({}, [])
    agreements = [
        agreement_of(first, second, runs, asked.names, limit) for first, second in itertools.combinations(runs, 2)
    ]
    report("measuring", 1, 1)
    latencies = _latencies(searches, asked, base, settings, report)
    windows = _windows(searches, asked, window_queries, limit, report)
    results = [
        _arm_result(search, runs[search.name], described, judged, settings, item_count).model_copy(
            update={
                "estimates": estimates.get(search.name, {}),
                "values": {name: found.tolist() for name, found in values[search.name].items()},
                "latency": latencies.get(search.name),
                "windows": windows.get(search.name),
            }
        )
        for search in searches
    ]
    chosen = choose_examples(values, infos, base, described, runs, judged, settings, count=examples)
    return Comparison(
        created_at=datetime.now(timezone.utc),
        version=__version__,
        settings=settings,
        verdict=judge(results, base, infos, differences, agreements, settings, len(judged) or len(asked.names)),
        baseline=base,
        queries=described,
        measures=infos,
        arms=results,
        differences=differences,
        agreements=agreements,
        examples=chosen,
        collections=collections_of(searches, results, chosen, runs, asked, depth),
        notes=_notes(results, described, settings),
        runs=runs,
        judgements=judged,
    )


def check_confidence(confidence: float) -> None:
    """Raise InvalidParameterError if it cannot be one."""
    known = isinstance(confidence, Real) and math.isfinite(confidence)
    if not (known and 0.5 <= confidence < 1):
        raise InvalidParameterError(f"confidence must be at least 0.5 and below 1, such as 0.95, got {confidence!r}")


def _baseline(name: str | None, searches: Sequence[ArmSearch]) -> str:
    names = [search.name for search in searches]
    if name is not None and name not in names:
        raise InvalidParameterError(f"the baseline {name!r} is no arm; there are {', '.join(names)}")
    return name or names[0]


def _primary(name: str | None, measures: Sequence[Measure]) -> str | None:
    """The measure that decides; None without judgements."""
    names = [measure.info.name for measure in measures]
    if not names:
        return None
    if name is not None and name not in names:
        raise InvalidParameterError(f"the primary measure {name!r} is not among the measures: {', '.join(names)}")
    return name or (_PREFERRED if _PREFERRED in names else names[0])


def _judgements(qrels: Table | None, relevant: Relevant | None, asked: Queries) -> tuple[Judgements, int]:
    """The judgements of the queries asked, in their order, and how many queries others are of."""
    if qrels is not None and relevant is not None:
        raise InvalidParameterError("qrels and relevant are two forms of the same; pass one of them")
    if relevant is not None:
        return relevance_of_rows(relevant, asked.names), 0
    if qrels is None:
        return {}, 0
    given = read_judgements(qrels)
    judged = {key: given[key] for key in asked.names if key in given}
    if not judged:
        raise InvalidJudgementsError(
            f"the qrels match no query: they are of {some_of(given)}, the queries are {some_of(asked.names)}"
        )
    return judged, len(given) - len(judged)


def _search(search: ArmSearch, asked: Queries, depth: int, report: Progress) -> Run:
    run: Run = {}
    stage = f"searching {search.name}"
    report(stage, 0, len(asked.names))
    for start in range(0, len(asked.names), _BATCH):
        rows = slice(start, start + _BATCH)
        run |= search.search(None if asked.vectors is None else asked.vectors[rows], asked.names[rows], depth)
        report(stage, len(run), len(asked.names))
    if not any(ranking.items for ranking in run.values()):
        raise InvalidRunError(f"arm {search.name!r} found nothing for any of the {len(run)} queries")
    return run


def _check_items(judged: Judgements, runs: Mapping[str, Run]) -> None:
    """Raise InvalidJudgementsError if no arm found any judged item for any query: the ids must be others."""
    known = {item for grades in judged.values() for item in grades}
    found = (item for run in runs.values() for ranking in run.values() for item in ranking.items)
    if known and known.isdisjoint(found):
        shown = next(ranking.items for run in runs.values() for ranking in run.values() if ranking.items)
        raise InvalidJudgementsError(
            f"no arm found any of the {len(known)} judged items for any query: the qrels name"
            f" {some_of(sorted(known))}, the arms return {some_of(shown)}; are these ids of the same kind?"
        )


def _latencies(
    searches: Sequence[ArmSearch], asked: Queries, baseline: str, settings: Settings, report: Progress
) -> dict[str, Latency]:
    timed = [search for search in searches if not isinstance(search, RunSearch)]
    if asked.vectors is None or not timed or not settings.latency_queries:
        return {}
    report("timing", 0, 1)
    chosen = asked.vectors[spread(len(asked.vectors), settings.latency_queries)]
    found = measure_latency(timed, chosen, baseline=baseline, limit=settings.limit)
    report("timing", 1, 1)
    return found


def _windows(
    searches: Sequence[ArmSearch], asked: Queries, count: int, limit: int, report: Progress
) -> dict[str, Windows]:
    chosen = [search for search in searches if isinstance(search, CollectionSearch)] if count else []
    found = {}
    for done, search in enumerate(chosen):
        report("windows", done, len(chosen))
        assert asked.vectors is not None
        windows = measure_windows(search, asked.vectors[spread(len(asked.vectors), count)], limit=limit)
        if windows is not None:
            found[search.name] = windows
        report("windows", done + 1, len(chosen))
    return found


def _arm_result(
    search: ArmSearch, run: Run, queries: QuerySet, judged: Judgements, settings: Settings, item_count: int | None
) -> ArmResult:
    """What the arm is, and what its results tell without the other arms."""
    facts = search.facts() if isinstance(search, CollectionSearch) else {}
    items = search.status.item_count if isinstance(search, CollectionSearch) else item_count
    curve = [round(float(recall), 6) for recall in recall_curve(judged, run, depth=settings.depth)] if judged else []
    return ArmResult(
        name=search.name,
        source=search.source,
        recall=curve,
        hubness=hubness_of_run(run, queries.keys, items, settings.limit) if items else None,
        short_count=sum(len(ranking.items) < settings.limit for ranking in run.values()),
        **facts,
    )


def _notes(arms: Sequence[ArmResult], queries: QuerySet, settings: Settings) -> list[str]:
    """What a reader has to know."""
    count, judged = len(queries.keys), len(queries.judged)
    notes = []
    if judged and judged < count:
        notes.append(
            f"{count - judged} of {count} queries have no judgements; the measures are over the {judged} others."
        )
    if queries.unmatched:
        notes.append(f"The qrels judge {queries.unmatched} more queries, which were not asked.")
    if queries.without_relevant:
        notes.append(f"{queries.without_relevant} judged queries have no relevant item: every measure of them is 0.")
    if 0 < judged < 30:
        notes.append(f"{judged} judged queries are few: intervals from so few are too narrow.")
    for arm in arms:
        if arm.short_count:
            notes.append(f"{arm.name}: {arm.short_count} of {count} queries have fewer than {settings.limit} results.")
        if arm.hubness is None:
            notes.append(f"{arm.name}: no hubness, since the number of items is not known; pass item_count.")
    return notes


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""
