"""What `analyze` finds: figures, and what they say in words."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel

from dbnorm_vdb.experiments.gathering import Tally

if TYPE_CHECKING:
    from rich.console import Group

Verdict: TypeAlias = Literal["better", "worse", "undecided"]


class Estimate(BaseModel):
    """A figure with its interval at the report's level."""

    value: float
    low: float
    high: float


class Look(BaseModel):
    """What the sequential test said at one time.

    Attributes:
        at: when the last of the users became final.
        users: how many were.
        value: the estimate then.
        p_value: always-valid.
    """

    at: AwareDatetime
    users: int
    value: float
    p_value: float


class Sequential(BaseModel):
    """An always-valid test: right however often and whenever one looks, and the one to decide by.

    Attributes:
        p_value: two-sided, the smallest up to now: it never rises.
        interval: always-valid, of the difference, or of the share that prefers the second arm. It goes by all users up
            to now, so that after a verdict it may come to hold "no difference" again, if later users were otherwise.
        history: up to 100 looks, evenly spread over the users: enough for a plot.
    """

    p_value: float
    interval: tuple[float, float]
    history: list[Look]


class ArmReport(BaseModel):
    """One arm of a split: users whose window is over.

    Attributes:
        share: of the traffic, as it should be.
        users: how many; each counts once.
        impressions: theirs, in their windows.
        clicks: items they clicked.
        click_through: share of a user's impressions with a click, mean over users.
        abandonment: without one.
        reciprocal_rank: of the first click, 0 if none: mean over the user's impressions, then over users.
    """

    arm: str
    share: float
    users: int
    impressions: int
    clicks: int
    click_through: Estimate | None
    abandonment: Estimate | None
    reciprocal_rank: Estimate | None


class Comparison(BaseModel):
    """An arm against the baseline by one metric. P-values and levels allow for the number of arms (Bonferroni).

    Attributes:
        metric: "click_through" or "reciprocal_rank".
        difference: the arm's mean minus the baseline's, with Welch's interval, which is right at one planned look.
        p_value: of Welch's test on users' means, right at one planned look.
        sequential: right at every look.
        verdict: by the sequential p-value.
    """

    metric: str
    baseline: str
    arm: str
    difference: Estimate
    p_value: float
    sequential: Sequential
    verdict: Verdict


class Preference(BaseModel):
    """Whom the users of interleaved results prefer.

    Attributes:
        users: those whose window is over.
        impressions: theirs, in their windows.
        clicks: items they clicked.
        for_arm: users who prefer `arm`.
        for_baseline: users who prefer `baseline`; the others have no preference.
        share: for the arm, of those with a preference, with the exact interval, which is right at one planned look.
        p_value: of the exact sign test, right at one planned look.
        sequential: right at every look.
        verdict: on `arm`, by the sequential p-value.
    """

    baseline: str
    arm: str
    users: int
    impressions: int
    clicks: int
    for_baseline: int
    for_arm: int
    share: Estimate
    p_value: float
    sequential: Sequential
    verdict: Verdict


class SampleRatio(BaseModel):
    """Whether users, or the first picks of interleaved lists, were split as they should have been.

    Attributes:
        what: "users" or "first picks".
        counts: of each arm.
        shares: as they should be.
        p_value: exact.
        mismatch: the p-value is below 0.001: something other than chance decides who is seen in which arm, and no
            figure of the experiment means anything.
    """

    what: str
    counts: dict[str, int]
    shares: dict[str, float]
    p_value: float
    mismatch: bool


class ExperimentReport(BaseModel):
    """An experiment as of one time. `print` shows it in words, `rich.print` with tables.

    Attributes:
        experiment: its name.
        until: the time as of which the log was analysed.
        window: how long each user is watched.
        metric: the one that the verdict goes by.
        alpha: the level of tests; intervals have the level `1 - alpha`.
        valid: whether the figures can be relied on; if not, `problems` says why not.
        problems: what makes the figures worthless.
        warnings: what to look into.
        verdict: in words.
        final_users: users whose window is over.
        open_users: users whose window is not over, and who do not count yet.
        arms: of a split, the baseline first.
        comparisons: of each arm with the baseline, by each metric.
        interleaving: None if nothing was interleaved.
        sample_ratios: of users, and of first picks.
        events: read from the log.
        unreadable_lines: of the log, skipped.
        tally: what did not count.
    """

    experiment: str
    until: AwareDatetime
    window: timedelta
    metric: str
    alpha: float
    valid: bool
    problems: list[str]
    warnings: list[str]
    verdict: str
    final_users: int
    open_users: int
    arms: list[ArmReport]
    comparisons: list[Comparison]
    interleaving: Preference | None
    sample_ratios: list[SampleRatio]
    events: int
    unreadable_lines: int
    tally: Tally

    def __str__(self) -> str:
        return "\n".join([self.verdict, *(f"Warning: {text}" for text in self.warnings)])

    def __rich__(self) -> Group:
        """As rich shows it.

        Raises:
            MissingDependencyError: rich is not installed.
        """
        from dbnorm_vdb.experiments.shown import shown_report

        return shown_report(self)
