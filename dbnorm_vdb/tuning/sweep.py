"""The biases of the candidates for many betas, from one matrix product for each bank; and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Bank, Vectors, usable_vectors
from dbnorm_vdb.biases import bank_side, item_side
from dbnorm_vdb.evaluation.candidates import RawCandidates
from dbnorm_vdb.kernels import NearestItems, make_kernel
from dbnorm_vdb.methods import Adjustment, Form, form_of, score_form
from dbnorm_vdb.statistics import Booleans, Floats, ItemId, Metric
from dbnorm_vdb.store import Store
from dbnorm_vdb.tuning.grid import Setting

Key: TypeAlias = tuple[str, float]
"""A bias column (see `statistics.COLUMNS`) and its beta; that of `nnn` is 0."""

_PAGE = 1000


class BankSweep:
    """The biases of items against one bank, one for each beta.

    Args:
        name: "query" or "gallery".
        bank: the bank.
        metric: how the collection compares vectors.
        betas: k inverse temperatures.
        log_weights: (m,) of `sinkhorn`, by beta.
        nearest_k: how many nearest items of each bank vector to keep.
        nnn_k: how many largest similarities of each item `nnn` is the mean of; 0 for none.
        backend: "numpy", "torch" or "auto".
        expected_items: about how many items will come.
    """

    def __init__(
        self,
        name: str,
        bank: Bank,
        metric: Metric,
        betas: Sequence[float],
        *,
        log_weights: Mapping[float, Floats] | None = None,
        nearest_k: int = 1,
        nnn_k: int = 0,
        backend: str = "auto",
        expected_items: int = 0,
    ) -> None:
        weighted = log_weights or {}
        partitions: list[Key] = [*((name, beta) for beta in betas), *(("sinkhorn", beta) for beta in weighted)]
        self.keys: list[Key] = [*partitions, *([("nnn", 0.0)] if nnn_k else [])]
        self._betas = np.array([beta for _, beta in partitions])
        self._log_size = float(np.log(len(bank)))
        self._metric = metric
        rows, offsets = bank_side(bank.vectors, metric, 1.0)
        weights = np.zeros((len(partitions), len(bank)))
        if offsets is not None:
            weights += self._betas[:, None] * offsets
        weights[len(betas) :] += np.array([*weighted.values()]).reshape(len(weighted), len(bank))
        self._kernel = make_kernel(
            rows,
            self._betas.tolist(),
            log_weights=weights.astype(rows.dtype) if weights.any() else None,
            nearest_k=nearest_k,
            largest_k=nnn_k,
            backend=backend,
            expected_items=expected_items,
        )

    def of(self, vectors: Vectors) -> Floats:
        """(len(keys), n) of the next (n, d) items; for `nnn`, before it is multiplied by alpha."""
        rows = self._kernel.scan(item_side(vectors, self._metric))
        count = len(self._betas)
        return np.concatenate([(rows[:count] - self._log_size) / self._betas[:, None], rows[count:]])

    @property
    def nearest(self) -> NearestItems:
        """The nearest items of each bank vector among those so far, by their positions."""
        assert self._kernel.nearest is not None
        return self._kernel.nearest


@dataclass(frozen=True)
class SweptItems:
    """The biases of n items, and the nearest of these to each vector of a bank.

    Attributes:
        biases: (n,) by name and beta; NaN for an item whose vector is missing or cannot be used.
        nearest: by bank, (m, k) positions of items, nearest first; -1 where there is none.
    """

    biases: dict[Key, Floats]
    nearest: dict[str, NearestItems]

    @classmethod
    def read(
        cls,
        store: Store,
        ids: Sequence[ItemId],
        sweeps: Mapping[str, BankSweep],
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> SweptItems:
        """Fetch the vectors of the items, page by page."""
        place = {item: position for position, item in enumerate(ids)}
        biases = {key: np.full(len(ids), np.nan) for sweep in sweeps.values() for key in sweep.keys}
        scanned: list[int] = []
        for start in range(0, len(ids), _PAGE):
            page = store.fetch(ids[start : start + _PAGE])
            usable = usable_vectors(page.vectors)
            positions = [place[item] for item, use in zip(page.ids, usable, strict=True) if use]
            for sweep in sweeps.values():
                for key, values in zip(sweep.keys, sweep.of(page.vectors[usable]), strict=True):
                    biases[key][positions] = values
            scanned += positions
            report(min(start + _PAGE, len(ids)), len(ids))
        order = np.array([*scanned, -1])  # -1: the last
        nearest = {
            name: NearestItems(sweep.nearest.similarity, order[sweep.nearest.position])
            for name, sweep in sweeps.items()
        }
        return cls(biases, nearest)


def activated_items(
    wanted: Iterable[int],
    nearest: NearestItems,
    ids: Sequence[ItemId],
    ask: Callable[[Sequence[int]], list[set[ItemId]]],
) -> set[int]:
    """Those of some candidates that are in a bank's activation set over the whole collection.

    An item that a bank vector activates is among its nearest candidates too. So only bank vectors with such an item
    among these can activate it, and one of them is enough: they are asked about in descending similarity, the number
    for each item doubling from round to round.

    Args:
        wanted: positions of the candidates in question.
        nearest: the nearest candidates of each bank vector.
        ids: of the candidates.
        ask: the engine's nearest items of the bank vectors at these positions, as many as are activated.
    """
    rows, ranks = np.nonzero(np.isin(nearest.position, list(wanted)))
    claims: dict[int, list[int]] = {}
    for claim in np.argsort(-nearest.similarity[rows, ranks], kind="stable").tolist():
        claims.setdefault(int(nearest.position[rows[claim], ranks[claim]]), []).append(int(rows[claim]))
    found: set[int] = set()
    answers: dict[int, set[ItemId]] = {}
    size = 1
    while claims:
        asked = {row for item in claims for row in claims[item][:size]} - answers.keys()
        answers |= zip(sorted(asked), ask(sorted(asked)), strict=True)
        found |= {item for item in claims if any(ids[item] in answers[row] for row in claims[item][:size])}
        claims = {item: left[size:] for item, left in claims.items() if item not in found and left[size:]}
        size *= 2
    return found


class Scorer:
    """Scores of the candidates under any setting.

    The mean bias of the collection, which is not known here, is a constant in every form of score, and so does not
    matter for the order; that of the candidates stands for it.

    Args:
        windows: the candidates of q queries.
        biases: of the n candidates. One without counts as an average item.
        activated: (n,) of each bank, whether a candidate is in its activation set; read at the raw top-1 items.
    """

    def __init__(
        self,
        windows: RawCandidates,
        biases: Mapping[Key, Floats],
        activated: Mapping[str, Booleans],
    ) -> None:
        self._windows = windows
        self._centred = {key: np.nan_to_num(values - np.nanmean(values)) for key, values in biases.items()}
        first = windows.items[:, 0]
        self._opened = {bank: flags[first] for bank, flags in activated.items()}

    def scores(self, setting: Setting) -> Floats:
        """(q, w) normalised similarities; -inf beyond the end of a window."""
        similarities, method = self._windows.similarities, setting.method
        if not method.dynamic:
            form = form_of(method, {})
            return score_form(form, similarities, self._adjustments(setting, form))
        opened = np.stack([self._opened[bank] for bank in method.banks], axis=1)
        scores: Floats = np.empty_like(similarities)
        for state in np.unique(opened, axis=0):
            rows = np.flatnonzero((opened == state).all(axis=1))
            form = form_of(method, dict(zip(method.banks, state.tolist(), strict=True)))
            scores[rows] = score_form(form, similarities[rows], self._adjustments(setting, form, rows))
        return scores

    def _adjustments(
        self, setting: Setting, form: Form, rows: slice | npt.NDArray[Any] = slice(None)
    ) -> dict[str, Adjustment]:
        adjustments = {}
        for column in form.columns:
            if column == "nnn":
                beta, values = 1.0, float(setting.nnn_alpha or 0) * self._centred["nnn", 0.0]
            else:
                beta = float((setting.gallery_beta if column == "gallery" else setting.query_beta) or 0)
                values = self._centred[column, beta]
            adjustments[column] = Adjustment(beta, values[self._windows.items[rows]], float(values.max()))
        return adjustments
