"""Verdicts on figures, and where they begin.

A hubness measure is judged by its *excess* over chance, `(value - chance) / (most - chance)`: 0 where lists drawn by
lot would show as much, 1 for the most possible. (It is to the measure what Cohen's kappa is to agreement.) So the
thresholds hold for any number of queries and items: few queries leave most of a large collection unfound, hubs or not.
For the k-skewness, which has no end to speak of, the excess is the difference from chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, computed_field

from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.parameters import check_finite

OUTSIDE = "outside_domain"
PLANTED = "planted"

Thresholds: TypeAlias = Mapping[str, tuple[float, float]]

THRESHOLDS: Thresholds = {
    "k_skewness": (0.75, 1.5),
    "robin_hood": (0.10, 0.20),
    "gini": (0.15, 0.30),
    "atkinson": (0.10, 0.20),
    "antihub_occurrence": (0.05, 0.20),
    "hub_occurrence": (0.15, 0.30),
    "groupie_ratio": (0.10, 0.25),
    OUTSIDE: (0.05, 0.20),
    PLANTED: (0.01, 0.10),
}
"""From which excess (for the last two: from which share of the queries) on the verdict is `warn`, and `fail`.

Chosen on what is known to be one or the other. The excess of the first six measures is at most

    0.1   0.02  0.03  0.01  0.00  0.04   on vectors spread evenly on a sphere, of 3 to 256 dimensions (no hubs),
    0.35  0.06  0.08  0.03  0.00  0.06   on the pictures, normalised with the betas that are best on dev,

and on raw searches of the pictures by their texts, which normalisation mends and so is to fail,

    1.6   0.28  0.40  0.22  0.08  0.41.

Raw searches of 8 000 photographs of Flickr8k (1.2, 0.22, 0.32, 0.19, 0.09, 0.33) fail as well; of the pictures by
pictures (0.5, 0.14, 0.20, 0.08, 0.01, 0.17), where there is less to mend, they get a warning. The item found most often
is among the results of 3 % more of the texts than by chance; one that is in a quarter of all lists crowds out too much.
Of queries like those the collection is compared with, 1 % lie outside the domain: five times that is a warning.
"""

FEWEST_QUERIES = 100
"""Below, chance alone may go beyond the thresholds: hubness is shown, but not judged."""


class Verdict(str, Enum):
    """What a figure is: as it should be, doubtful, or bad."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"

    @property
    def severity(self) -> int:
        """0, 1 or 2."""
        return list(Verdict).index(self)

    @classmethod
    def worst(cls, verdicts: Iterable[Verdict | None]) -> Verdict:
        """The worst of those given; ok if there are none."""
        return max((verdict for verdict in verdicts if verdict), key=lambda verdict: verdict.severity, default=cls.OK)


class Reading(BaseModel):
    """One figure.

    Attributes:
        value: as measured.
        excess: what the thresholds are compared with; None where chance alone reaches the most possible.
        verdict: None where it is not judged.
    """

    model_config = ConfigDict(frozen=True)

    value: float
    excess: float | None
    verdict: Verdict | None

    @classmethod
    def of(cls, value: float, excess: float | None, thresholds: tuple[float, float], *, judge: bool = True) -> Reading:
        """A figure and the verdict on its excess."""
        if excess is None or not judge:
            return cls(value=value, excess=excess, verdict=None)
        return cls(value=value, excess=excess, verdict=list(Verdict)[sum(excess >= limit for limit in thresholds)])


class Finding(BaseModel):
    """One thing that an audit looks at.

    Attributes:
        name: one of `THRESHOLDS`.
        raw: of the engine's own results.
        normalized: of normalised results; None where there are none, or where they make no difference.
        least, most: the range of the figure.
        chance: what it would be where there is no hubness; None for what has no such value.
        warn, fail: the thresholds, for the excess.
        meaning: for retrieval, in a sentence.
        next_command: what to run next; None where nothing is due. TARGET stands for the collection's URL, QUERIES for
            the file of queries.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    raw: Reading
    normalized: Reading | None
    least: float
    most: float
    chance: float | None
    warn: float
    fail: float
    meaning: str
    next_command: str | None

    @property
    def served(self) -> Reading:
        """What users of the collection get: normalised results where there are some."""
        return self.normalized or self.raw

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict | None:
        """That on what is served."""
        return self.served.verdict


def checked_thresholds(changed: Thresholds | None) -> dict[str, tuple[float, float]]:
    """The thresholds, some of them changed.

    Raises:
        InvalidParameterError: an unknown name, not a pair of finite numbers, or the first larger than the second.
    """
    thresholds = dict(THRESHOLDS)
    for name, pair in (changed or {}).items():
        if name not in thresholds:
            raise InvalidParameterError(f"no threshold {name!r}; there are {', '.join(thresholds)}")
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InvalidParameterError(f"threshold {name!r} is a pair, from where to warn and to fail, got {pair!r}")
        warn, fail = (check_finite(value, what=f"threshold {name!r}") for value in pair)
        if warn > fail:
            raise InvalidParameterError(
                f"threshold {name!r}: it fails from {fail:g} on, before it warns, from {warn:g}"
            )
        thresholds[name] = (warn, fail)
    return thresholds
