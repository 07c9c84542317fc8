"""Trying settings on a collection that is only read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Bank, Vectors
from dbnorm_vdb.biases import bank_side, item_side
from dbnorm_vdb.evaluation.candidates import Nearest, Positions, RawCandidates, best_columns
from dbnorm_vdb.evaluation.gains import Measure
from dbnorm_vdb.evaluation.labelled import LabelledQueries
from dbnorm_vdb.fitting import FitSettings, learn_sinkhorn
from dbnorm_vdb.hubness import Hubness, measure_hubness
from dbnorm_vdb.methods import Method
from dbnorm_vdb.statistics import BANKS, EXACT_SHARE, Floats, ItemId, Metric
from dbnorm_vdb.store import Store
from dbnorm_vdb.tuning.grid import Setting, default_betas, make_grid
from dbnorm_vdb.tuning.sweep import BankSweep, Scorer, SweptItems, activated_items
from dbnorm_vdb.writing import Progress, sample_vectors

_SPREAD_SAMPLE = 1000


@dataclass(frozen=True)
class Plan:
    """What is to be tried, checked.

    Attributes:
        methods: besides `raw`.
        betas: by bank; those of a bank that is not named are chosen by the spread of its similarities.
        activation_k, nnn_k, iterations, sample_size, seed, backend: as in a fit.
        candidates: how many to fetch for each query.
        cutoff: how many results count.
        report: called with a stage, how many are done, and how many there are.
    """

    methods: Sequence[Method]
    betas: Mapping[str, Sequence[float]]
    activation_k: int
    nnn_k: int
    iterations: int
    sample_size: int
    seed: int
    backend: str
    candidates: int
    cutoff: int
    report: Progress


@dataclass(frozen=True)
class Tried:
    """The results of q queries under each of s settings.

    Attributes:
        settings: simplest method first; the first is `raw`.
        windows: the candidates.
        columns: for each setting (q, k) columns of the results among the candidates, best first.
    """

    settings: list[Setting]
    windows: RawCandidates
    columns: list[Positions]

    def values(self, labelled: LabelledQueries, measure: Measure) -> Floats:
        """(s, q) a measure of every query."""
        grades = self.windows.grades(labelled)
        return np.stack(
            [measure.of(np.take_along_axis(grades, columns, axis=1), labelled.grades) for columns in self.columns]
        )

    def hubness(self, setting: int, item_count: int, kept: npt.NDArray[np.bool_] | slice = slice(None)) -> Hubness:
        """Of a collection of `item_count`, in the results of the queries kept."""
        found = np.take_along_axis(self.windows.items[kept], self.columns[setting][kept], axis=1)
        _, counts = np.unique(found[found >= 0], return_counts=True)
        return measure_hubness(counts, item_count=max(item_count, len(counts)))

    def reach(self, setting: int) -> int:
        """How many candidates hold the results of 99 % of the queries."""
        deepest = np.sort(self.columns[setting].max(axis=1) + 1)
        return int(deepest[math.ceil(EXACT_SHARE * len(deepest)) - 1])


def try_settings(
    store: Store, nearest: Nearest, metric: Metric, queries: Vectors, banks: Mapping[str, Bank], plan: Plan
) -> Tried:
    """Search the (q, d) queries raw, and re-rank their candidates with every setting.

    Only the candidates' vectors are read (and a sample of the collection's, for `sinkhorn`). Each bank is multiplied
    once, for all betas. Nothing is written.
    """
    windows = RawCandidates.read(nearest, store, queries, plan.candidates, partial(plan.report, "queries"))
    betas = {
        name: plan.betas.get(name) or default_betas(name, _spread(store, windows.ids, bank, metric))
        for name, bank in banks.items()
    }
    settings = make_grid(
        plan.methods,
        {"query": (), "gallery": (), **betas},
        activation_k=plan.activation_k,
        nnn_k=plan.nnn_k,
        iterations=plan.iterations,
    )
    sweeps = _sweeps(store, metric, banks, settings, plan, len(windows.ids))
    swept = SweptItems.read(store, windows.ids, sweeps, partial(plan.report, "candidates"))
    gates = {bank for setting in settings if setting.method.dynamic for bank in setting.method.banks}
    activated = {
        name: _activated(nearest, banks[name], swept, name, windows, plan.activation_k)
        for name in BANKS
        if name in gates
    }
    scorer = Scorer(windows, swept.biases, activated)
    columns = []
    for number, setting in enumerate(settings, 1):
        columns.append(best_columns(scorer.scores(setting), plan.cutoff))
        plan.report("settings", number, len(settings))
    return Tried(settings, windows, columns)


def _spread(store: Store, ids: Sequence[ItemId], bank: Bank, metric: Metric) -> float:
    """The standard deviation of the similarities of a bank to candidates, on a sample of both."""
    chosen = [ids[position] for position in np.linspace(0, len(ids) - 1, min(_SPREAD_SAMPLE, len(ids))).astype(int)]
    rows, offsets = bank_side(bank.sample(_SPREAD_SAMPLE).vectors, metric, 1.0)
    similarities = rows @ item_side(store.fetch(chosen).vectors, metric).T
    return float((similarities if offsets is None else similarities + offsets[:, None]).std(dtype=np.float64))


def _sweeps(
    store: Store, metric: Metric, banks: Mapping[str, Bank], settings: Sequence[Setting], plan: Plan, expected: int
) -> dict[str, BankSweep]:
    """What computes the biases that the settings need."""
    weighted = sorted({s.query_beta or 0 for s in settings if s.method is Method.SINKHORN})
    plain = {
        "query": sorted({s.query_beta or 0 for s in settings if s.query_beta and s.method is not Method.SINKHORN}),
        "gallery": sorted({s.gallery_beta or 0 for s in settings if s.gallery_beta}),
    }
    nnn_k = plan.nnn_k if any(s.method is Method.NNN for s in settings) else 0
    weights = _sinkhorn_weights(store, metric, banks["query"], weighted, plan) if weighted else {}
    sweeps = {}
    for name, bank in banks.items():
        query = name == "query"
        if plain[name] or (query and (weights or nnn_k)):
            sweeps[name] = BankSweep(
                name,
                bank,
                metric,
                plain[name] or [1.0],
                log_weights=weights if query else None,
                nearest_k=plan.activation_k,
                nnn_k=nnn_k if query else 0,
                backend=plan.backend,
                expected_items=expected,
            )
    return sweeps


def _sinkhorn_weights(
    store: Store, metric: Metric, bank: Bank, betas: Sequence[float], plan: Plan
) -> dict[float, Floats]:
    """The weights that a fit with each beta would learn."""
    items = sample_vectors(store, plan.sample_size, plan.seed)
    weights = {}
    for number, beta in enumerate(betas, 1):
        settings = FitSettings(Method.SINKHORN, query_beta=beta, iterations=plan.iterations, backend=plan.backend)
        weights[beta] = learn_sinkhorn(bank, items, metric, settings).log_weights
        plan.report("sinkhorn weights", number, len(betas))
    return weights


def _activated(
    nearest: Nearest, bank: Bank, swept: SweptItems, name: str, windows: RawCandidates, activation_k: int
) -> npt.NDArray[np.bool_]:
    """(n,) whether a candidate that is some query's raw top-1 is in the bank's activation set."""

    def ask(rows: Sequence[int]) -> list[set[ItemId]]:
        hits = nearest(bank.vectors[list(rows)], limit=activation_k, method="raw", with_payload=False)
        return [{hit.id for hit in found} for found in hits]

    wanted = {int(item) for item in windows.items[:, 0] if item >= 0}
    found = activated_items(wanted, swept.nearest[name], windows.ids, ask)
    flags = np.zeros(len(windows.ids), dtype=np.bool_)
    flags[list(found)] = True
    return flags
