"""What a collection with DBNorm tells of itself: audits, and how a result came about. It reads only."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy.typing as npt

from dbnorm_vdb.audits.auditing import run_audit
from dbnorm_vdb.audits.lists import Asked, Subject
from dbnorm_vdb.audits.report import Audit
from dbnorm_vdb.audits.verdicts import checked_thresholds
from dbnorm_vdb.banks import Bank, check_vectors
from dbnorm_vdb.current import check_same_vector
from dbnorm_vdb.errors import EmptyCollectionError, InvalidParameterError, NotFittedError, StatisticsError
from dbnorm_vdb.explaining import explain_item
from dbnorm_vdb.explanations import ItemExplanation
from dbnorm_vdb.methods import Method, check_supported
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.searching import Explanation
from dbnorm_vdb.serving import Serving
from dbnorm_vdb.statistics import CollectionStatistics, ItemId
from dbnorm_vdb.steps import Each, Steps
from dbnorm_vdb.store import Hit
from dbnorm_vdb.writing import Progress, stored_banks

_BATCH = 100

Queries: TypeAlias = Bank | npt.ArrayLike | str | os.PathLike[str]


class Inspections(Serving):
    """The part of a collection with DBNorm that looks into it."""

    def nearest(
        self,
        queries: npt.ArrayLike,
        *,
        limit: int = 10,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        with_payload: bool = True,
    ) -> list[list[Hit]]:
        """The nearest items of each of the (q, d) `queries`, in engine-neutral form, best first.

        Args:
            queries: (q, d) vectors.
            limit: how many of each.
            candidates, method, exact: as in the engine's own search.
            with_payload: with the items' payload or fields.
        """
        found = self._in_batches(False, queries, limit, with_payload, candidates=candidates, method=method, exact=exact)
        return self._run(self._all_hits(found))

    def nearest_explained(
        self,
        queries: npt.ArrayLike,
        *,
        limit: int = 10,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
    ) -> list[Explanation]:
        """How the results of `nearest` come about: of each query the hits' ranks and scores, and the certificate."""
        found = self._in_batches(True, queries, limit, False, candidates=candidates, method=method, exact=exact)
        return [told for batch in self._run(found) for told in batch.queries]

    def _in_batches(
        self, explained: bool, queries: npt.ArrayLike, limit: int, with_payload: bool, **options: Any
    ) -> Steps[list[Any]]:
        """The results of (q, d) queries, explained or not, some at a time."""
        info = yield from self._described()
        vectors = check_vectors(queries, what="queries", dimension=info.dimension)
        searching = yield from self._search_of_batches(explained, limit, with_payload, options)
        starts = range(0, len(vectors), _BATCH)
        found: list[Any] = yield Each([searching(vectors[start : start + _BATCH].tolist()) for start in starts])
        return found

    def _all_hits(self, searching: Steps[list[Any]]) -> Steps[list[list[Hit]]]:
        found = yield from searching
        return [hits for batch in found for hits in self._hits(batch)]

    @abstractmethod
    def _search_of_batches(
        self, explained: bool, limit: int, with_payload: bool, options: Mapping[str, Any]
    ) -> Steps[Callable[[list[list[float]]], Steps[Any]]]:
        """The engine's own search, for several vectors at once. The vector is described before."""

    @abstractmethod
    def _hits(self, found: Any) -> list[list[Hit]]:
        """What that search, not explained, found for each of its vectors, in engine-neutral form."""

    def audit(
        self,
        queries: Queries | None = None,
        *,
        k: int = 10,
        sample: int = 1000,
        seed: int = 0,
        method: str | Method | None = None,
        texts: Sequence[str] | None = None,
        hubs: int = 10,
        thresholds: Mapping[str, tuple[float, float]] | None = None,
        progress: Progress | None = None,
    ) -> Audit:
        """Which hubs and antihubs there are under a sample of queries, before and after normalisation.

        Strictly read-only. It searches twice with each query, once with each of up to `sample` vectors of the stored
        query bank (or of 500 items, where nothing is fitted), and reads all ids, but no more than some 1 000 vectors.

        Args:
            queries: queries like those the collection serves: (n, d) array, path (`.npy`, `.npz`, `.parquet`) or
                `Bank`. None: the stored query bank, on which the statistics were fitted, so that what is measured
                after normalisation is more favourable than on live queries, as the notes say.
            k: how many results of each query count.
            sample: how many of the queries to use, at most.
            seed: of what is drawn by lot.
            method: of the normalised results, instead of the fitted default; `raw` for none.
            texts: of the queries, in their order, to show.
            hubs: how many of the items found most often to look at.
            thresholds: for some names of `dbnorm_vdb.audits.verdicts.THRESHOLDS`, from where on to warn and to fail.
            progress: called with a stage, how many are done, and how many there are.

        Raises:
            InvalidInputError: and its kinds, when the queries or a parameter cannot be used.
            EmptyCollectionError: there are no items, or no queries find any.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
            StatisticsError: the stored query bank is not the one that was fitted.
        """
        for name, count in (("k", k), ("sample", sample), ("hubs", hubs)):
            check_count(count, what=name)
        check_count(seed, what="seed", least=0)
        limits = checked_thresholds(thresholds)
        info = self._store.describe(fresh=True)
        items = self._store.count()
        if not items:
            raise EmptyCollectionError(f"collection {self._store.collection!r} has no items to audit")
        if k >= items:
            raise InvalidParameterError(f"k={k}: hubness needs more items than that, the collection has {items}")
        given = None if queries is None else Bank.of(queries, what="queries", dimension=info.dimension)
        active, notes = self._usable_statistics(strict=method not in (None, "raw"))
        used = None
        if active is not None:
            used = check_supported(method or active.method, active)
            notes += self._coverage(active, items)
        if used is Method.RAW:
            used, notes = None, [*notes, "Normalised results are not measured: the method is 'raw'."]
        bank = stored_banks(self._store, active)[0].get("query") if active else None
        asked, about = _asked(given, bank, texts, sample, seed)
        return run_audit(
            Subject(self._store, self.nearest, progress or _silent),
            asked,
            method=used and used.value,
            reference_bank=bank and bank.sample(sample, seed=seed),
            k=k,
            hub_count=hubs,
            seed=seed,
            thresholds=limits,
            notes=[*about, *notes],
        )

    def explain(
        self,
        query: npt.ArrayLike,
        id: ItemId,
        *,
        method: str | Method | None = None,
        max_candidates: int | None = None,
    ) -> ItemExplanation:
        """How an item comes to its place among the results of a query, before and after normalisation.

        The window of candidates is widened until the item is found and its rank is certain, or up to `max_candidates`.
        Printed, the explanation is in words.

        Args:
            query: (d,) or (1, d) vector.
            id: of the item.
            method: instead of the fitted default.
            max_candidates: how far to widen the window; default 10 000.

        Raises:
            InvalidParameterError: there is no such item, or it lacks the vector.
            InvalidVectorsError: and its kinds, when the query cannot be used.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
            StatisticsError: there are statistics, but not of this vector, or unreadable ones.
        """
        info = self._store.describe(fresh=True)
        active = self._ledger.active()
        while True:
            check_same_vector(active, info, self._store.collection, fitting=False)
            if active is None and method not in (None, "raw"):
                raise NotFittedError(f"collection {self._store.collection!r} has no statistics; call fit()")
            explanation = explain_item(
                self._store, self.nearest, query, id, statistics=active, method=method, max_candidates=max_candidates
            )
            used, active = active, self._ledger.active()
            if (active and active.generation) == (used and used.generation):
                return explanation  # else a fit has replaced what it was read from

    def _usable_statistics(self, *, strict: bool) -> tuple[CollectionStatistics | None, list[str]]:
        """The active statistics, or why there are none; errors are raised if `strict`."""
        try:
            active = self._ledger.active()
            check_same_vector(active, self._store.describe(), self._store.collection, fitting=False)
            if active is None:
                raise NotFittedError(f"collection {self._store.collection!r} has no statistics; call fit()")
        except StatisticsError as error:
            if strict:
                raise
            reason = "nothing is fitted" if isinstance(error, NotFittedError) else str(error)
            return None, [f"There are no normalised results: {reason}."]
        return active, []

    def _coverage(self, active: CollectionStatistics, item_count: int) -> list[str]:
        missing = item_count - self._store.count_fitted(active.generation)
        if missing <= active.skipped_count + active.absent_count:
            return []
        return [f"{missing} of {item_count} items lack statistics and count as average items: refresh."]


def _asked(
    given: Bank | None, bank: Bank | None, texts: Sequence[str] | None, sample: int, seed: int
) -> tuple[Asked, list[str]]:
    """The queries of an audit, and what is to be said of them."""
    queries = bank if given is None else given
    if queries is None:
        raise InvalidParameterError("queries are needed: nothing is fitted, so there is no stored query bank to use")
    if texts is not None and (given is None or len(texts) != len(given)):
        raise InvalidParameterError(f"{len(texts)} texts for {0 if given is None else len(given)} queries given")
    from_bank = given is None or (bank is not None and given.fingerprint == bank.fingerprint)
    source = f"the stored query bank ({queries.source})" if given is None else queries.source
    notes = [
        "The queries are those of the query bank that the statistics were fitted on: after normalisation, live queries"
        " will show more hubness. Audit with others."
    ]
    rows = queries.sample_rows(sample, seed=seed)
    return Asked(queries.vectors[rows], rows, source, texts, from_bank), notes if from_bank else []


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""
