"""`analyze`: from an event log to a report."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

import numpy as np

from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.experiments.comparing import (
    METRICS,
    arm_report,
    comparison,
    most_common_split,
    preference,
    sample_ratio,
)
from dbnorm_vdb.experiments.gathering import Impressions, Tally, gather
from dbnorm_vdb.experiments.rates import scipy_stats
from dbnorm_vdb.experiments.reading import LinesRead, read_events
from dbnorm_vdb.experiments.report import ArmReport, Comparison, ExperimentReport, Preference, SampleRatio
from dbnorm_vdb.experiments.users import Users, interleaved_users, split_users
from dbnorm_vdb.experiments.words import comparison_in_words, mismatch_in_words, preference_in_words
from dbnorm_vdb.parameters import check_count

_WORTH_A_WARNING = 0.01


def analyze(
    path: str | os.PathLike[str],
    *,
    experiment: str | None = None,
    window: timedelta = timedelta(days=1),
    metric: str = "click_through",
    alpha: float = 0.05,
    max_impressions: int = 200,
    until: datetime | None = None,
) -> ExperimentReport:
    """What an event log says of an experiment, as of now.

    Users count once each, with what they did in the `window` that begins with their first impression, as soon as it is
    over (`dbnorm_vdb.experiments.users` has the rules). The verdict is that of a sequential test
    (`dbnorm_vdb.experiments.sequential`). Its hypothesis: whatever happened before, the expected outcome of the next
    user is the same in both arms. If that is true, the probability that the verdict is *ever* another is at most
    `alpha`, however often and whenever this is called.

    Decide on `window`, `metric`, `alpha` and `max_impressions` before looking, and keep to them: the promise is that of
    one test.

    Args:
        path: the folder of the log.
        experiment: its name; may be left out if the log holds one experiment.
        window: how long each user is watched. Long enough for what they do in one go; the longer, the more is seen of
            each, and the later.
        metric: that the verdict on a split goes by: "click_through" or "reciprocal_rank" (of the first click).
        alpha: the error rate of the verdict; intervals have the level `1 - alpha`. A split and an interleaving in one
            log are two tests.
        max_impressions: a user with more in the window is taken for a robot.
        until: analyse the log as it was then; by default now.

    Raises:
        EventLogError: there is no log, or not the experiment in it, or several and none was named.
        InvalidParameterError: an argument is out of its range.
        MissingDependencyError: scipy is not installed (extra `evaluation`).
    """
    if window <= timedelta(0):
        raise InvalidParameterError(f"window must be longer than nothing, got {window!r}")
    if metric not in METRICS:
        raise InvalidParameterError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if not 0 < alpha < 1:
        raise InvalidParameterError(f"alpha must lie between 0 and 1, got {alpha!r}")
    check_count(max_impressions, what="max_impressions")
    as_of = datetime.now(timezone.utc) if until is None else until
    if as_of.tzinfo is None:
        raise InvalidParameterError(f"until must have a time zone, got {as_of!r}")
    scipy_stats()  # to be missed before the log is read
    lines, tally = LinesRead(), Tally()
    name, shown = gather(read_events(path, lines), experiment=experiment, until=as_of, tally=tally)
    split = split_users(shown, window=window, max_impressions=max_impressions, tally=tally)
    interleaved = interleaved_users(shown, window=window, max_impressions=max_impressions, tally=tally)
    now = as_of.timestamp()
    arms, comparisons, ratios = _split_figures(shown, split, split[split.final_at <= now], alpha=alpha)
    preferred = None
    if len(interleaved):
        preferred = preference(shown, interleaved[interleaved.final_at <= now], alpha=alpha)
        ratios.append(_first_picks(shown))
    problems = [mismatch_in_words(ratio) for ratio in ratios if ratio.mismatch]
    if lines.newer:
        problems.append(f"{lines.newer} events are of a newer format than this version of dbnorm-vdb knows: upgrade it")
    final = int((split.final_at <= now).sum() + (interleaved.final_at <= now).sum())
    return ExperimentReport(
        experiment=name,
        until=as_of,
        window=window,
        metric=metric,
        alpha=alpha,
        valid=not problems,
        problems=problems,
        warnings=_warnings(shown, split, lines, tally) + _no_longer_clear(comparisons, preferred),
        verdict=_verdict(problems, arms, comparisons, preferred, metric=metric, alpha=alpha),
        final_users=final,
        open_users=len(split) + len(interleaved) - final,
        arms=arms,
        comparisons=comparisons,
        interleaving=preferred,
        sample_ratios=ratios,
        events=lines.events,
        unreadable_lines=lines.unreadable,
        tally=tally,
    )


def _split_figures(
    shown: Impressions, users: Users, final: Users, *, alpha: float
) -> tuple[list[ArmReport], list[Comparison], list[SampleRatio]]:
    """Arms, comparisons and the sample ratio of a split; nothing if there is none."""
    if not len(users):
        return [], [], []
    main = most_common_split(shown, users)
    numbers, shares = shown.splits[main]
    names = [shown.arms[arm] for arm in numbers]
    arms = [
        arm_report(name, share, final[(final.split == main) & (final.arm == arm)], alpha=alpha)
        for arm, name, share in zip(numbers, names, shares, strict=True)
    ]
    comparisons = [
        comparison(shown, final, main, (numbers[0], other), metric, alpha=alpha, arms=len(numbers) - 1)
        for other in numbers[1:]
        for metric in METRICS
    ]
    counts = np.bincount(users.arm[users.split == main], minlength=len(shown.arms))
    ratio = sample_ratio(
        "users",
        {name: int(counts[arm]) for arm, name in zip(numbers, names, strict=True)},
        dict(zip(names, shares, strict=True)),
    )
    return arms, comparisons, [ratio]


def _first_picks(shown: Impressions) -> SampleRatio:
    """The first tosses of interleaved lists, of which there is one an impression, independent of all others."""
    assert shown.pair is not None
    won = shown.arm[shown.split < 0]
    counts = {shown.arms[arm]: int((won == arm).sum()) for arm in shown.pair}
    return sample_ratio("first picks", counts, dict.fromkeys(counts, 0.5))


def _verdict(
    problems: list[str],
    arms: list[ArmReport],
    comparisons: list[Comparison],
    preferred: Preference | None,
    *,
    metric: str,
    alpha: float,
) -> str:
    """The sentences that come first."""
    if problems:
        return "INVALID: " + "; ".join(problems) + "."
    means = {arm.arm: getattr(arm, metric) for arm in arms}
    told = []
    for found in comparisons:
        arm, baseline = means[found.arm], means[found.baseline]
        if found.metric != metric:
            continue
        if arm is None or baseline is None:
            told.append(f"{found.arm} against {found.baseline}: no user's window is over in one of them yet.")
        else:
            level = 1 - alpha / (len(arms) - 1)
            told.append(comparison_in_words(found, arm=arm.value, baseline=baseline.value, level=level))
    if preferred is not None:
        told.append(preference_in_words(preferred, level=1 - alpha))
    return " ".join(told)


def _warnings(shown: Impressions, users: Users, lines: LinesRead, tally: Tally) -> list[str]:
    """What to look into."""
    clicks = len(shown.clicked) + tally.duplicate_clicks + tally.orphan_clicks + tally.foreign_clicks
    parts = [
        (
            tally.switched_users,
            len(users),
            "users were shown results of several arms in their window (weights were changed, or keys are not stable);"
            " they count for the first, which hides part of a difference",
        ),
        (
            tally.orphan_clicks,
            clicks,
            "clicks are on impressions that are not in the log: impressions get lost, or clicks are forged",
        ),
        (tally.foreign_clicks, clicks, "clicks are on items that their impression did not show: ids do not match"),
        (
            lines.unreadable,
            lines.unreadable + lines.events,
            "lines of the log are unreadable: more than killed processes leave, so something else writes there",
        ),
        (tally.robots, tally.robots + len(users), "users were taken for robots (max_impressions)"),
        (tally.later_events, lines.events, "events are later than the time of this report"),
    ]
    found = [f"{count} of {total} {text}" for count, total, text in parts if count > _WORTH_A_WARNING * total]
    if len(users):
        others = int((users.split != most_common_split(shown, users)).sum())
        if others:
            found.append(
                f"weights were changed during the experiment: the rates of arms and the planned look leave out {others}"
                f" of {len(users)} users, who came under other weights; the sequential test takes all"
            )
    return found


def _no_longer_clear(comparisons: list[Comparison], preferred: Preference | None) -> list[str]:
    """Verdicts that were reached earlier, and that all users together do not bear out."""
    tests = [(f"{found.metric} of {found.arm}", found.verdict, found.sequential, 0.0) for found in comparisons]
    if preferred is not None:
        tests.append((f"preference for {preferred.arm}", preferred.verdict, preferred.sequential, 0.5))
    return [
        f"{what} was found {verdict} earlier; users who came later were otherwise, so that the interval holds no"
        " difference again: look at the history, an effect may have worn off"
        for what, verdict, sequential, null in tests
        if verdict != "undecided" and sequential.interval[0] <= null <= sequential.interval[1]
    ]
