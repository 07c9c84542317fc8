"""What a validation found: whether the statistics help on labelled queries, and whether the bank is like these."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from dbnorm_vdb.stored import Count, Share, Stored

LARGEST_P_VALUE = 0.01
"""Queries look unlike the bank if fewer than this share of random splits are as far apart."""


class BankDistance(Stored):
    """How far a sample of queries is from the query bank (`dbnorm_vdb.likeness`).

    Attributes:
        distance: the energy coefficient, 0 for samples of one distribution (in the mean; a little less is possible),
            at most 1.
        chance: what 99 % of random splits of the two samples together stay below.
        p_value: the share of random splits that are at least as far apart.
        query_count: the queries looked at.
        bank_count: the bank vectors looked at.
    """

    distance: FiniteFloat
    chance: FiniteFloat
    p_value: Share
    query_count: Count
    bank_count: Count

    @property
    def unlike(self) -> bool:
        """Whether that is further than chance explains."""
        return self.p_value <= LARGEST_P_VALUE

    def in_words(self) -> str:
        """A sentence."""
        seen = (
            f"distance {self.distance:.4f} between {self.query_count} queries and {self.bank_count} bank vectors; 99 %"
            f" of random splits stay below {self.chance:.4f} (p = {self.p_value:.3f})"
        )
        return (
            f"the queries look unlike the query bank: {seen}"
            if self.unlike
            else f"the queries look like the query bank: {seen}"
        )


class Verdict(Stored):
    """Whether searches with new statistics beat raw ones on labelled queries: a paired bootstrap, one-sided 95 %.

    Attributes:
        measure: what was measured, e.g. "nDCG@10".
        raw: its mean over the queries for raw searches.
        normalized: its mean for normalised ones, with the window that searches use by default.
        lowest_gain: the lower end of the one-sided 95 % interval of the gain.
        passed: the gain is beyond chance: `lowest_gain > 0`, from enough queries that differ at all.
        query_count: the queries.
        group_count: the different sets of relevant items among them. Queries with the same one are not independent, so
            they are resampled together.
        better: queries that were better with normalisation.
        worse: queries that were worse.
        candidates: the window.
        unknown_count: relevant items that the collection does not have; they count as not found.
        banked_count: queries that are in the query bank themselves, and so are not new to it.
        bank_distance: of the queries from the query bank; None where there is none, or too few queries.
    """

    measure: str
    raw: FiniteFloat
    normalized: FiniteFloat
    lowest_gain: FiniteFloat
    passed: bool
    query_count: Annotated[int, Field(ge=1)]
    group_count: Annotated[int, Field(ge=1)]
    better: Count
    worse: Count
    candidates: Annotated[int, Field(ge=1)]
    unknown_count: Count = 0
    banked_count: Count = 0
    bank_distance: BankDistance | None = None

    @property
    def gain(self) -> float:
        """Normalised minus raw."""
        return self.normalized - self.raw

    def in_words(self) -> str:
        """A sentence with the figures."""
        found = "better than raw" if self.passed else "not shown to be better than raw"
        return (
            f"{found}: {self.measure} {self.normalized:.4f} against {self.raw:.4f}, a gain of {self.gain:+.4f} (with"
            f" 95 % confidence at least {self.lowest_gain:+.4f}) on {self.query_count} labelled queries, of which"
            f" {self.better} were better and {self.worse} worse"
        )
