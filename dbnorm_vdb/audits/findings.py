"""Findings: figures with their verdicts, and in words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dbnorm_vdb.audits.verdicts import FEWEST_QUERIES, Finding, Reading, Thresholds, Verdict
from dbnorm_vdb.hubness import MEASURES, Hubness, chance_hubness, hubness_range

_TINY = 1e-9


def hubness_findings(
    raw: Hubness,
    normalized: Hubness | None,
    *,
    query_count: int,
    item_count: int,
    k: int,
    thresholds: Thresholds,
    next_command: str,
) -> list[Finding]:
    """All hubness measures, judged.

    Args:
        raw: of the engine's own results.
        normalized: of normalised results, if there are any.
        query_count, item_count, k: of what was measured; no more than k items.
        thresholds: of each measure.
        next_command: for those that are not ok.
    """
    chance = chance_hubness(query_count, item_count, k).as_dict()
    least, most = (hubness.as_dict() for hubness in hubness_range(query_count, item_count, k))
    values = raw.as_dict(), {} if normalized is None else normalized.as_dict()
    return [
        _finding(
            name,
            values[0][name],
            values[1].get(name),
            thresholds,
            excess=partial(_excess, name, chance=chance[name], most=most[name]),
            limits=(least[name], most[name]),
            chance=chance[name],
            meaning=partial(_meaning, name, chance=chance[name], k=k),
            next_command=next_command,
            judge=query_count >= FEWEST_QUERIES,
        )
        for name in MEASURES
    ]


def share_finding(
    name: str,
    raw: float,
    normalized: float | None,
    thresholds: Thresholds,
    *,
    meaning: str,
    next_command: str | None,
    judge: bool = True,
) -> Finding:
    """A share of the queries, judged by itself."""
    return _finding(
        name,
        raw,
        normalized,
        thresholds,
        excess=lambda share: share,
        limits=(0.0, 1.0),
        chance=None,
        meaning=lambda served: meaning,
        next_command=next_command,
        judge=judge,
    )


def _finding(
    name: str,
    raw: float,
    normalized: float | None,
    thresholds: Thresholds,
    *,
    excess: Callable[[float], float | None],
    limits: tuple[float, float],
    chance: float | None,
    meaning: Callable[[Reading], str],
    next_command: str | None,
    judge: bool,
) -> Finding:
    def read(value: float) -> Reading:
        return Reading.of(value, excess(value), thresholds[name], judge=judge)

    before, after = read(raw), None if normalized is None else read(normalized)
    served = after or before
    return Finding(
        name=name,
        raw=before,
        normalized=after,
        least=limits[0],
        most=limits[1],
        chance=chance,
        warn=thresholds[name][0],
        fail=thresholds[name][1],
        meaning=meaning(served),
        next_command=next_command if served.verdict in (Verdict.WARN, Verdict.FAIL) else None,
    )


def percent(share: float) -> str:
    """A share in words, with a digit more where it is small."""
    value = 100 * share
    digits = 0 if value >= 9.95 or value < _TINY else 1 if value >= 0.095 else 2
    return f"{value:.{digits}f} %"


def _excess(name: str, value: float, *, chance: float, most: float) -> float | None:
    if name == "k_skewness":
        return value - chance
    return (value - chance) / (most - chance) if most - chance > _TINY else None


def _meaning(name: str, served: Reading, *, chance: float, k: int) -> str:
    """What a measure says of the results that are served."""
    value = served.value
    if served.excess is None:
        return "With so few results for so many items, chance alone reaches the most possible: more queries would tell."
    if name == "k_skewness":
        return _SKEWNESS[served.verdict]
    told = {
        "robin_hood": "For all items to be found equally often, {value} of the results would have to go to others"
        " (by chance {chance}).",
        "gini": "How often they are found differs between two items drawn by lot by {value} of the mean"
        " (by chance {chance}).",
        "atkinson": "Were results spread evenly, {value} of them could be spared, if an item's first hit counts more"
        " than its tenth (by chance {chance}).",
        "antihub_occurrence": "{value} of the items are found by none of the queries, whatever they hold"
        " (by chance {chance}).",
        "hub_occurrence": "{value} of the results go to items that are found at least twice as often as the mean"
        " (by chance {chance}).",
        "groupie_ratio": "The item found most often is among the results of {value} of the queries"
        " (by chance {chance}).",
    }
    scale = {"gini": 2, "groupie_ratio": k}.get(name, 1)
    return told[name].format(value=percent(scale * value), chance=percent(scale * chance))


_SKEWNESS = {
    Verdict.OK: "No item is found much more often than chance would have it.",
    Verdict.WARN: "Some items are found far more often than the rest, and take places from better answers.",
    Verdict.FAIL: "A few hubs are among the nearest of far too many queries, and push right answers down.",
    None: "How far the items found most often stand out from the rest.",
}
