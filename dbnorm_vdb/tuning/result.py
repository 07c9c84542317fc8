"""What a tuning found."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from dbnorm_vdb.methods import Method
from dbnorm_vdb.tuning.grid import Setting
from dbnorm_vdb.verdicts import BankDistance


class Trial(BaseModel):
    """One setting, and how it did.

    Attributes:
        setting: what was tried.
        figures: by measure, means over the queries; without labels, hubness measures.
    """

    model_config = ConfigDict(frozen=True)

    setting: Setting
    figures: dict[str, float]


class HeldOut(BaseModel):
    """What the chosen settings are worth on queries that had no part in choosing them: by cross-validation.

    Attributes:
        folds: into how many parts the queries were split.
        figures: by measure, means over the queries, each searched with the setting chosen without its fold.
        gain: of the objective, over raw.
        standard_error: of that gain.
        chosen: how many folds chose each method.
    """

    model_config = ConfigDict(frozen=True)

    folds: int
    figures: dict[str, float]
    gain: float
    standard_error: float
    chosen: dict[str, int]


class TuneResult(BaseModel):
    """Which settings to fit with, and why. `fit(query_bank, gallery_bank, **result.settings)` takes them as they are.

    Attributes:
        validated: whether labelled queries stand behind it. If not, the settings are those with the least hubness,
            which is no proof that anybody finds more: compare, or `fit(validation=...)`, before relying on them.
        objective: what was optimised: a measure, or without labels the `robin_hood` index, where less is better.
        raw: the figures without normalisation.
        best: the setting to take: the simplest method within one standard error of the best.
        highest: the best by its figure alone.
        held_out: what to expect of new queries; None without labels.
        trials: every setting tried, simplest method first.
        query_count: the queries.
        group_count: the different sets of relevant items among them, each of which counts as one observation; without
            labels, that of the queries.
        item_count: items in the collection.
        candidates: how many were fetched for each query. An item beyond them cannot be ranked.
        reach: how many of them would do: the first `cutoff` results of 99 % of the queries, with the best setting,
            come from so many.
        beyond_count: relevant items that are beyond the candidates of their query, and so count as not found.
        relevant_count: relevant items of all queries.
        warnings: what makes the figures less than they seem, in words.
        bank_distance: of the queries from the query bank.
    """

    model_config = ConfigDict(frozen=True)

    validated: bool
    objective: str
    raw: Trial
    best: Trial
    highest: Trial
    held_out: HeldOut | None
    trials: list[Trial]
    query_count: int
    group_count: int
    item_count: int
    candidates: int
    reach: int
    beyond_count: int
    relevant_count: int
    warnings: list[str]
    bank_distance: BankDistance | None

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `fit`."""
        return self.best.setting.arguments

    def gain(self, trial: Trial) -> float:
        """By how much a trial is better than raw in the objective; negative if it is worse."""
        difference = trial.figures[self.objective] - self.raw.figures[self.objective]
        return difference if self.validated else -difference

    def in_words(self) -> str:
        """The verdict, with its figures."""
        words = f"{'' if self.validated else 'UNVALIDATED: '}{self._figure(self.best)}"
        if self.best.setting.method is not Method.RAW:
            words += f", against {self.raw.figures[self.objective]:.4f} for raw"
        words += f", on {self.query_count} queries"
        if self.highest.setting != self.best.setting:
            words += f"; the best, {self._figure(self.highest)}, is better by no more than one standard error"
        if self.held_out is not None:
            words += (
                f"; on queries that have no part in it, such a choice gains {self.held_out.gain:+.4f} ±"
                f" {self.held_out.standard_error:.4f} ({self.held_out.folds}-fold cross-validation)"
            )
        return words

    def _figure(self, trial: Trial) -> str:
        return f"{trial.setting.in_words()}: {self.objective} {trial.figures[self.objective]:.4f}"
