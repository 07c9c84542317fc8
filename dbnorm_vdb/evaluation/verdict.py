"""The answer in words: is an arm better than the baseline, by how much, how sure, and at what cost?"""

from __future__ import annotations

from collections.abc import Sequence

from dbnorm_vdb.evaluation.results import (
    Agreement,
    ArmResult,
    ArmVerdict,
    Decision,
    Difference,
    MeasureInfo,
    Settings,
    Verdict,
)


def judge(
    arms: Sequence[ArmResult],
    baseline: str,
    measures: Sequence[MeasureInfo],
    differences: Sequence[Difference],
    agreements: Sequence[Agreement],
    settings: Settings,
    query_count: int,
) -> Verdict:
    """The verdict on every arm but the baseline, and the answer over all of them."""
    base = next(arm for arm in arms if arm.name == baseline)
    others = [arm for arm in arms if arm.name != baseline]
    direction = {measure.name: 1 if measure.larger_is_better else -1 for measure in measures}
    verdicts = []
    for arm in others:
        own = [difference for difference in differences if difference.arm == arm.name]
        decision = _decide(own, settings.primary, direction)
        sentences = [_effect(arm, base, own, settings)] if own else []
        sentences += _others(own, settings.primary, direction)
        if not own:
            sentences.append(_alike(arm, base, agreements, settings.limit))
        sentences += [text for text in (_hubness(arm, base, settings.limit), _cost(arm, settings.limit)) if text]
        verdicts.append(ArmVerdict(arm=arm.name, decision=decision, sentences=sentences))
    return Verdict(headline=_headline(verdicts, base, differences, direction, settings, query_count), arms=verdicts)


def _sign(difference: Difference, direction: dict[str, int]) -> int:
    """1 where the arm is significantly better, -1 where it is significantly worse, else 0."""
    if not difference.significant:
        return 0
    return direction[difference.measure] * (1 if difference.difference.value > 0 else -1)


def _decide(own: Sequence[Difference], primary: str | None, direction: dict[str, int]) -> Decision:
    if not own:
        return "unjudged"
    signs = {difference.measure: _sign(difference, direction) for difference in own}
    if {1, -1} <= set(signs.values()):
        return "mixed"
    return {1: "better", -1: "worse", 0: "undecided"}[signs[str(primary)]]  # type: ignore[return-value]


def _headline(
    verdicts: Sequence[ArmVerdict],
    baseline: ArmResult,
    differences: Sequence[Difference],
    direction: dict[str, int],
    settings: Settings,
    query_count: int,
) -> str:
    primary = settings.primary
    if primary is None:
        return (
            "Without judgements nobody can tell which arm is better; what follows is how they differ, and what they"
            " cost."
        )
    effects = {entry.arm: entry for entry in differences if entry.measure == primary}
    gain = {arm: direction[primary] * entry.difference.value for arm, entry in effects.items()}
    better = sorted((v.arm for v in verdicts if v.decision == "better"), key=lambda arm: -gain[arm])
    counted = f"{query_count} {'query' if query_count == 1 else 'queries'}"
    if better:
        best = effects[better[0]]
        rest = f"; so {'is' if len(better) == 2 else 'are'} {', '.join(better[1:])}" if better[1:] else ""
        return f"Yes: {better[0]} is better than {baseline.name} on {counted}: {_figures(best, settings)}{rest}."
    mixed = [v.arm for v in verdicts if v.decision == "mixed"]
    if mixed:
        return f"It depends: {', '.join(mixed)} beats {baseline.name} by some measures and loses by others ({counted})."
    worse = [v.arm for v in verdicts if v.decision == "worse"]
    if len(worse) == len(verdicts):
        least = max(worse, key=lambda arm: gain[arm])
        return (
            f"No: {', '.join(worse)} {'is' if len(worse) == 1 else 'are'} worse than {baseline.name} on {counted}: "
            + (f"{_figures(effects[least], settings)}.")
        )
    open_ = [v.arm for v in verdicts if v.decision == "undecided"]
    also = f"; {', '.join(worse)} {'is' if len(worse) == 1 else 'are'} worse" if worse else ""
    return (
        f"Not shown: on {counted} no difference by {primary} between {baseline.name} and {', '.join(open_)} is larger"
        f" than chance would make it{also}."
    )


def _figures(entry: Difference, settings: Settings) -> str:
    shown = entry.difference
    return (
        f"{entry.measure} {_signed(shown.value)} ({settings.confidence_in_words} interval {_signed(shown.low)} to"
        f" {_signed(shown.high)}, {_p(entry.p_adjusted)})"
    )


def _effect(arm: ArmResult, baseline: ArmResult, own: Sequence[Difference], settings: Settings) -> str:
    primary = str(settings.primary)
    entry = next(difference for difference in own if difference.measure == primary)
    value, before = arm.estimates[primary].value, baseline.estimates[primary].value
    return (
        f"{primary} is {value:.4g} against {before:.4g} with {baseline.name}: {_figures(entry, settings)};"
        f" better for {entry.wins} queries, worse for {entry.losses}, the same for {entry.ties}."
    )


def _others(own: Sequence[Difference], primary: str | None, direction: dict[str, int]) -> list[str]:
    """What the other measures say, where they are sure of it."""
    sentences = []
    for sign, word in ((1, "better"), (-1, "worse")):
        said = [entry.measure for entry in own if entry.measure != primary and _sign(entry, direction) == sign]
        if said:
            sentences.append(f"Also significantly {word} by {', '.join(said)}.")
    return sentences


def _alike(arm: ArmResult, baseline: ArmResult, agreements: Sequence[Agreement], limit: int) -> str:
    pair = {arm.name, baseline.name}
    found = next(agreement for agreement in agreements if {agreement.first, agreement.second} == pair)
    return (
        f"{found.overlap:.0%} of the first {limit} results are the same as with {baseline.name}, and the first result"
        f" for {found.same_first:.0%} of the queries."
    )


def _hubness(arm: ArmResult, baseline: ArmResult, limit: int) -> str | None:
    if arm.hubness is None or baseline.hubness is None:
        return None
    now, before = arm.hubness.measures, baseline.hubness.measures
    return (
        f"Hubs: k-skewness at {limit} is {now['k_skewness']:.2f} against {before['k_skewness']:.2f}; items never found"
        f" are {now['antihub_occurrence']:.1%} against {before['antihub_occurrence']:.1%}."
    )


def _cost(arm: ArmResult, limit: int) -> str | None:
    if arm.latency is None or arm.latency.ratio is None:
        return None
    return (
        f"Cost: a search for {limit} takes {arm.latency.ratio:.2f} times as long, {arm.latency.median:.3g} ms in the"
        f" median ({arm.latency.p95:.3g} ms at the 95th percentile)."
    )


def _signed(value: float) -> str:
    """A difference with its sign, in three digits or to four places."""
    return f"{value:+.4f}" if abs(value) < 1 else f"{value:+.3g}"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
