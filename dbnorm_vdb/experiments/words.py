"""What the figures of an experiment say in words."""

from __future__ import annotations

from dbnorm_vdb.experiments.report import Comparison, Preference, SampleRatio

METRICS = {"click_through": "click-through", "reciprocal_rank": "reciprocal rank of the first click"}
"""Names for readers."""


def comparison_in_words(found: Comparison, *, arm: float, baseline: float, level: float) -> str:
    """One sentence: which is better, by how much, how surely.

    Args:
        found: the comparison.
        arm: the arm's mean.
        baseline: the baseline's mean.
        level: of the interval.
    """
    of = found.metric
    figures = (
        f"{METRICS[of]} {figure(of, arm)} against {figure(of, baseline)},"
        f" difference {change(of, found.difference.value)};"
        f" {_always_valid(found.sequential.interval, level, of)}, {p_in_words(found.sequential.p_value)}"
    )
    if found.verdict == "undecided":
        return f"{found.arm} against {found.baseline} is undecided so far ({figures})."
    return f"{found.arm} is {found.verdict} than {found.baseline} ({figures})."


def preference_in_words(found: Preference, *, level: float) -> str:
    """One sentence: whom users prefer, how many of them, how surely."""
    figures = (
        f"{found.for_arm} of {found.for_arm + found.for_baseline} users with a preference prefer {found.arm},"
        f" {found.share.value:.1%};"
        f" {_always_valid(found.sequential.interval, level, None)}, {p_in_words(found.sequential.p_value)}"
    )
    if found.verdict == "undecided":
        return f"Interleaved, {found.arm} against {found.baseline} is undecided so far ({figures})."
    return f"Interleaved, {found.arm} is {found.verdict} than {found.baseline} ({figures})."


def mismatch_in_words(found: SampleRatio) -> str:
    """Two sentences: the sample ratio is not what it should be, and what that means."""
    counts = " : ".join(f"{arm} {count}" for arm, count in found.counts.items())
    shares = " : ".join(f"{share:.1%}" for share in found.shares.values())
    return (
        f"sample ratio mismatch: {found.what} are {counts}, which chance does not make of {shares}"
        f" ({p_in_words(found.p_value)}). Something other than the split decides who is logged in which arm, so no"
        " figure below means anything: look for errors, timeouts, redirects, caches or filters that one arm has more"
        " of, mend them, and begin anew under another name"
    )


def figure(metric: str, value: float) -> str:
    """A value of a metric: three decimals for a reciprocal rank, else a percentage."""
    return f"{value:.3f}" if metric == "reciprocal_rank" else f"{value:.1%}"


def change(metric: str, value: float) -> str:
    """A difference of two values: percentages differ by points."""
    return f"{value:+.3f}" if metric == "reciprocal_rank" else f"{100 * value:+.1f} points"


def change_interval(metric: str, low: float, high: float) -> str:
    """From one difference to another."""
    return f"{change(metric, low).removesuffix(' points')} to {change(metric, high)}"


def p_in_words(p_value: float) -> str:
    """A p-value, to two digits."""
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.2g}"


def _always_valid(interval: tuple[float, float], level: float, metric: str | None) -> str:
    """The interval of a difference, or of a share if there is no metric."""
    ends = f"{interval[0]:.1%} to {interval[1]:.1%}" if metric is None else change_interval(metric, *interval)
    return f"always-valid {100 * level:.4g} % interval {ends}"
