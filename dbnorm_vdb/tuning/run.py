"""The whole of a tuning: queries, trials, the choice, and what it promises."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dbnorm_vdb.banks import Bank, Vectors
from dbnorm_vdb.errors import InvalidParameterError, UnsupportedMethodError
from dbnorm_vdb.evaluation.candidates import Nearest
from dbnorm_vdb.evaluation.gains import Measure
from dbnorm_vdb.evaluation.labelled import LabelledQueries
from dbnorm_vdb.likeness import bank_distance
from dbnorm_vdb.methods import Method
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.store import Store, VectorInfo
from dbnorm_vdb.tuning.grid import BetaInput, Setting, parse_betas, parse_methods
from dbnorm_vdb.tuning.result import HeldOut, Trial, TuneResult
from dbnorm_vdb.tuning.selection import choose, choose_labelled, cross_validated, jackknife_error, standard_error
from dbnorm_vdb.tuning.trying import Plan, Tried, try_settings
from dbnorm_vdb.validation import DEFAULT_MEASURE, banked_count
from dbnorm_vdb.verdicts import BankDistance
from dbnorm_vdb.writing import Progress, silent

DEFAULT_MEASURES = ("R@1", "R@5", "R@10", "RR@10", "nDCG@10")
DEFAULT_CANDIDATES = 500
HUBNESS = "robin_hood"
UNVALIDATED = (
    "UNVALIDATED: chosen without labels, by the least hubness of the results; that is no proof that they are better, so"
    " compare with raw before relying on them"
)

_LIMIT = 10
_HELD_OUT = 500
_HELD_OUT_SHARE = 5
_LEAST_BANK = 50
_BLOCKS = 10
_CONFIDENT = 1.645
"""Standard errors above 0, for one-sided 95 %."""

_logger = logging.getLogger("dbnorm_vdb")


@dataclass(frozen=True)
class TuneOptions:
    """What may be asked of a tuning; see `NormalizedCollection.tune`."""

    methods: Iterable[str | Method] | None = None
    betas: BetaInput | None = None
    measure: str = DEFAULT_MEASURE
    folds: int = 5
    candidates: int | None = None
    activation_k: int = 1
    nnn_k: int = 10
    iterations: int = 10
    sample_size: int = 50_000
    seed: int = 0
    backend: str = "auto"
    progress: Progress | None = None

    def __post_init__(self) -> None:
        for name in ("activation_k", "nnn_k", "iterations", "sample_size"):
            check_count(getattr(self, name), what=name)
        check_count(self.folds, what="folds", least=2)
        check_count(self.seed, what="seed", least=0)
        Measure.parse(self.measure)

    def plan(self, banks: Iterable[str], cutoff: int, item_count: int, store: Store) -> Plan:
        """All of it, checked."""
        window = self.candidates
        if window is None:
            window = max(cutoff, min(DEFAULT_CANDIDATES, item_count, store.max_window))
        elif check_count(window, what="candidates", least=cutoff) > store.max_window:
            raise InvalidParameterError(f"candidates={window}: {store.engine} returns at most {store.max_window} hits")
        return Plan(
            methods=parse_methods(self.methods, banks),
            betas=parse_betas(self.betas),
            activation_k=self.activation_k,
            nnn_k=self.nnn_k,
            iterations=self.iterations,
            sample_size=self.sample_size,
            seed=self.seed,
            backend=self.backend,
            candidates=window,
            cutoff=cutoff,
            report=self.progress or silent,
        )


def tune(
    store: Store,
    nearest: Nearest,
    info: VectorInfo,
    queries: Any,
    relevant: Any,
    banks: Mapping[str, Bank],
    options: TuneOptions,
) -> TuneResult:
    """Try settings on labelled queries, or without labels; see `NormalizedCollection.tune`."""
    if "query" not in banks:
        raise UnsupportedMethodError("nothing to tune: every method but raw needs a query bank: pass query_bank=...")
    if relevant is not None:
        return _tune_labelled(store, nearest, info, queries, relevant, banks, options)
    return _tune_unlabelled(store, nearest, info, queries, banks, options)


# --- with labels -----------------------------------------------------------------------------------------------------


def _tune_labelled(
    store: Store,
    nearest: Nearest,
    info: VectorInfo,
    queries: Any,
    relevant: Any,
    banks: Mapping[str, Bank],
    options: TuneOptions,
) -> TuneResult:
    objective = Measure.parse(options.measure)
    measures = list(dict.fromkeys([*(Measure.parse(name) for name in DEFAULT_MEASURES), objective]))
    item_count = store.count()
    plan = options.plan(banks, max(measure.cutoff for measure in measures), item_count, store)
    if queries is None:
        raise InvalidParameterError("relevant=... says what is relevant to queries: pass these too")
    labelled = LabelledQueries.of(queries, relevant, what="tune", dimension=info.dimension)
    group_count = int(labelled.groups.max()) + 1
    if group_count < options.folds:
        raise InvalidParameterError(
            f"folds={options.folds}: there are {len(labelled)} labelled queries with {group_count} different sets of"
            " relevant items, which do not go into so many folds; give more, better hundreds"
        )
    labelled = labelled.looked_up(store, what="tune")
    tried = try_settings(store, nearest, info.metric, labelled.vectors, banks, plan)
    values = {str(measure): tried.values(labelled, measure) for measure in measures}
    trials = [
        Trial(setting=setting, figures={name: float(of[row].mean()) for name, of in values.items()})
        for row, setting in enumerate(tried.settings)
    ]
    aim = values[str(objective)]
    best = choose_labelled(tried.settings, aim, labelled.groups)
    held_out = _held_out(tried, values, str(objective), labelled, options)
    distance = bank_distance(banks["query"].vectors, labelled.vectors, info.metric)
    relevant_count = sum(len(items) for items in labelled.relevant)
    found_count = int((tried.windows.grades(labelled) > 0).sum())
    return TuneResult(
        validated=True,
        objective=str(objective),
        raw=trials[0],
        best=trials[best],
        highest=trials[int(aim.mean(axis=1).argmax())],
        held_out=held_out,
        trials=trials,
        query_count=len(labelled),
        group_count=group_count,
        item_count=item_count,
        candidates=plan.candidates,
        reach=tried.reach(best),
        beyond_count=relevant_count - found_count,
        relevant_count=relevant_count,
        bank_distance=distance,
        warnings=[
            *_of_gain(held_out, tried.settings[best]),
            *_of_labels(labelled),
            *_of_queries(labelled.vectors, banks["query"], distance),
            *_of_trials(tried, best, item_count),
        ],
    )


def _held_out(
    tried: Tried, values: Mapping[str, Any], objective: str, labelled: LabelledQueries, options: TuneOptions
) -> HeldOut:
    chosen, fold_of = cross_validated(
        tried.settings, values[objective], labelled.groups, folds=options.folds, seed=options.seed
    )
    rows, columns = chosen[fold_of], np.arange(len(fold_of))
    gains = values[objective][rows, columns] - values[objective][0]
    return HeldOut(
        folds=options.folds,
        figures={name: float(of[rows, columns].mean()) for name, of in values.items()},
        gain=float(gains.mean()),
        standard_error=standard_error(gains, labelled.groups),
        chosen=dict(Counter(tried.settings[row].method.value for row in chosen.tolist())),
    )


# --- without ---------------------------------------------------------------------------------------------------------


def _tune_unlabelled(
    store: Store, nearest: Nearest, info: VectorInfo, queries: Any, banks: Mapping[str, Bank], options: TuneOptions
) -> TuneResult:
    item_count = store.count()
    plan = options.plan(banks, _LIMIT, item_count, store)
    distance = None
    if queries is None:
        asked, rest = _hold_out(banks["query"], options.seed)
        banks = {**banks, "query": rest}
    else:
        asked = Bank.of(queries, what="tune queries", dimension=info.dimension).vectors
        distance = bank_distance(banks["query"].vectors, asked, info.metric)
    tried = try_settings(store, nearest, info.metric, asked, banks, plan)
    hubness = [tried.hubness(row, item_count) for row in range(len(tried.settings))]
    figures = np.array([-getattr(one, HUBNESS) for one in hubness])

    def error(first: int, second: int) -> float:
        def difference(kept: Any) -> float:
            one, other = (getattr(tried.hubness(row, item_count, kept), HUBNESS) for row in (first, second))
            return float(other - one)

        return jackknife_error(difference, len(asked), blocks=min(_BLOCKS, len(asked)), seed=options.seed)

    best = choose(tried.settings, figures, error)
    trials = [
        Trial(setting=setting, figures=one.as_dict()) for setting, one in zip(tried.settings, hubness, strict=True)
    ]
    _logger.warning("collection %r: tune: %s", store.collection, UNVALIDATED)
    return TuneResult(
        validated=False,
        objective=HUBNESS,
        raw=trials[0],
        best=trials[best],
        highest=trials[int(figures.argmax())],
        held_out=None,
        trials=trials,
        query_count=len(asked),
        group_count=len(asked),
        item_count=item_count,
        candidates=plan.candidates,
        reach=tried.reach(best),
        beyond_count=0,
        relevant_count=0,
        bank_distance=distance,
        warnings=[
            UNVALIDATED,
            *_of_queries(asked, banks["query"], distance),
            *_of_trials(tried, best, item_count),
        ],
    )


def _hold_out(bank: Bank, seed: int) -> tuple[Vectors, Bank]:
    """Some of a query bank's vectors, to search with, and a bank of the others."""
    if len(bank) < _LEAST_BANK:
        raise InvalidParameterError(
            f"tune without labels holds out a fifth of the query bank, which has {len(bank)} vectors and needs"
            f" {_LEAST_BANK} for that; pass queries=... to search with"
        )
    chosen = np.zeros(len(bank), dtype=np.bool_)
    size = min(_HELD_OUT, len(bank) // _HELD_OUT_SHARE)
    chosen[np.random.default_rng(seed).choice(len(bank), size=size, replace=False)] = True
    return bank.vectors[chosen], Bank.of(bank.vectors[~chosen], what="query bank")


# --- what makes the figures less than they seem ----------------------------------------------------------------------


def _of_gain(held_out: HeldOut, chosen: Setting) -> list[str]:
    if chosen.method is Method.RAW or held_out.gain > _CONFIDENT * held_out.standard_error:
        return []
    return [
        f"no gain is shown: on queries that had no part in the choice it is {held_out.gain:+.4f} ±"
        f" {held_out.standard_error:.4f}, which may be chance; give more labelled queries, or leave the collection raw"
    ]


def _of_labels(labelled: LabelledQueries) -> list[str]:
    found = []
    if labelled.left_out:
        found.append(f"{labelled.left_out} queries without a relevant item were left out")
    if labelled.unknown:
        found.append(f"{labelled.unknown} relevant items are not in the collection; they count as never found")
    return found


def _of_queries(queries: Vectors, bank: Bank, distance: BankDistance | None) -> list[str]:
    found = []
    banked = banked_count(bank, queries)
    if banked:
        found.append(
            f"{banked} of the {len(queries)} queries are in the query bank: these say nothing about queries it does not"
            " hold; take others"
        )
    if distance is not None and distance.unlike:
        found.append(distance.in_words())
    return found


def _of_trials(tried: Tried, best: int, item_count: int) -> list[str]:
    found = []
    window, reach = tried.windows.items.shape[1], tried.reach(best)
    if window < item_count and 2 * reach > window:
        found.append(
            f"the best results come from {reach} of the {window} candidates, so more of them may hold better ones;"
            f" raise candidates"
        )
    setting = tried.settings[best]
    for name in ("query_beta", "gallery_beta"):
        beta = getattr(setting, name)
        others = {getattr(other, name) for other in tried.settings if other.method is setting.method}
        if beta is not None and len(others) > 1 and beta in (min(others), max(others)):
            end = "smallest" if beta == min(others) else "largest"
            found.append(
                f"the best {name.replace('_', ' ')}, {beta:g}, is the {end} that was tried; try others beyond it"
            )
    return found
