"""What fit, refresh, fold and status tell their caller."""

from __future__ import annotations

from pydantic import BaseModel

from dbnorm_vdb.statistics import Calibration, CollectionStatistics, FitClaim, Metric
from dbnorm_vdb.verdicts import BankDistance

_GROWN = 1.5
"""A collection this many times as large as the one that was fitted deserves another fit."""


def in_words(calibration: Calibration) -> str:
    """What a calibration says of the windows of searches."""
    words = (
        f"{calibration.candidates} hold the exact top {calibration.limit} of {calibration.exact_share:.1%} of"
        f" {calibration.query_count} held-out bank queries; {calibration.certified_candidates} certify it for"
        f" {calibration.certified_share:.1%}"
    )
    if calibration.suffices:
        return words
    return f"too many hubs for a small window: {words}; for exact results search with exact=True"


class FitSummary(BaseModel):
    """What a fit did.

    Attributes:
        statistics: those that searches use from now on, if they were activated.
        activated: whether they were; if not, `statistics.verdict` says why, and they are gone.
        item_count: items that have statistics.
        skipped_count: items whose vector could not be used.
        missing_count: items of the collection that lack statistics now: inserted during the fit, changed during it
            (on Milvus those keep what they had, until a refresh), or without the vector.
        resumed_count: of the items, how many an earlier fit had done before it was interrupted.
        seconds: how long it took.
    """

    statistics: CollectionStatistics
    activated: bool
    item_count: int
    skipped_count: int
    missing_count: int
    resumed_count: int
    seconds: float


class RefreshSummary(BaseModel):
    """What a refresh did.

    Attributes:
        item_count: items that have statistics.
        written_count: items among them that lacked statistics, or had changed.
        removed_count: statistics removed, of items that no longer exist.
        skipped_count: items whose vector could not be used.
        seconds: how long it took.
    """

    statistics: CollectionStatistics
    item_count: int
    written_count: int
    removed_count: int
    skipped_count: int
    seconds: float


class FoldSummary(BaseModel):
    """What a fold did.

    Attributes:
        target: the folded copy.
        method: whose normalisation it carries.
        item_count: items in it.
        copied_count: items written.
        resumed_count: items that an interrupted fold had written, and that were still right.
        skipped_count: items left out, since their vector cannot be used.
        unfitted_count: items without statistics, which count as average items.
        verified_count: items compared with the source, whole, after they were written.
        seconds: how long it took.
    """

    target: str
    method: str
    item_count: int
    copied_count: int
    resumed_count: int
    skipped_count: int
    unfitted_count: int
    verified_count: int
    seconds: float


class Status(BaseModel):
    """What an adapter's collection holds, as of now.

    Attributes:
        item_count: items in the collection.
        fitted_count: items among them with statistics of the active generation. On Milvus, items deleted since the
            last fit or refresh may count.
        active: the statistics that searches use; None before the first fit.
        rejected: those of the last fit, if its validation was against them; None if it was not.
        writing: the claim of a fit that is running, or was killed.
        changed_banks: of the banks given to `status`, those that differ from the fitted ones.
        bank_distance: of the queries given to `status` from the fitted query bank.
        banks_missing: the stored banks are gone: searches go on, but new items cannot get statistics.
    """

    engine: str
    collection: str
    vector: str
    dimension: int
    metric: Metric
    item_count: int
    fitted_count: int
    active: CollectionStatistics | None
    rejected: CollectionStatistics | None
    writing: FitClaim | None
    changed_banks: list[str]
    bank_distance: BankDistance | None = None
    banks_missing: bool = False

    @property
    def coverage(self) -> float:
        """The share of items with statistics; the others count as average items."""
        return min(1.0, self.fitted_count / self.item_count) if self.item_count else 0.0

    @property
    def advice(self) -> list[str]:
        """What is due, in words: a fit, a refresh, or nothing."""
        if self.active is None:
            return ["fit: there are no statistics"]
        found = ["fit: the stored banks are gone, new items cannot get statistics"] if self.banks_missing else []
        found += [f"fit: the {name} bank is not the one that was fitted" for name in self.changed_banks]
        validated = self.active.verdict.bank_distance if self.active.verdict is not None else None
        for which, distance in (("these", self.bank_distance), ("those of the validation", validated)):
            if distance is not None and distance.unlike:
                found.append(f"fit, with a bank of queries like {which}: {distance.in_words()}")
        fitted = self.active.fitted_item_count or self.active.item_count
        if not fitted / _GROWN <= self.item_count <= fitted * _GROWN:
            found.append(f"fit: the collection had {fitted} items when it was fitted, and has {self.item_count}")
        missing = self.item_count - self.fitted_count
        if missing > self.active.skipped_count + self.active.absent_count:
            found.append(f"refresh: {missing} of {self.item_count} items lack statistics")
        elif missing < 0:
            found.append(f"refresh: {-missing} items with statistics are gone")
        return found
