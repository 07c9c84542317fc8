"""The settings that are tried: methods, in order of simplicity, times betas."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict

from dbnorm_vdb.errors import InvalidParameterError, UnsupportedMethodError
from dbnorm_vdb.methods import Method
from dbnorm_vdb.parameters import check_beta
from dbnorm_vdb.statistics import BANKS

SIMPLEST_FIRST = (
    Method.RAW,
    Method.IS,
    Method.DIS,
    Method.NNN,
    Method.SINKHORN,
    Method.DUAL_IS,
    Method.DUAL_DIS,
)
"""By what they need: nothing, one bank and one beta, gates too, two numbers, learned weights, two banks, all of it."""

DEFAULT_METHODS = tuple(method for method in SIMPLEST_FIRST if method is not Method.SINKHORN)
"""Those whose biases come from one matrix product for each bank; `sinkhorn` takes several for each beta."""

NNN_ALPHAS = (0.25, 0.5, 0.75, 1.0)

# Products of beta and the standard deviation of the bank's similarities to the items: below the lower ends hardly
# anything is normalised, above the upper ends the nearest bank vectors alone decide.
_SPREADS = {"query": (0.4, 8.0), "gallery": (0.25, 3.2)}
_STEPS = {"query": (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), "gallery": (1.0, 2.0, 5.0)}

BetaInput: TypeAlias = Sequence[float] | Mapping[str, Sequence[float]]


class Setting(BaseModel):
    """What `fit` may be told: a method, and of the rest what the method depends on."""

    model_config = ConfigDict(frozen=True)

    method: Method
    query_beta: float | None = None
    gallery_beta: float | None = None
    activation_k: int | None = None
    nnn_alpha: float | None = None
    nnn_k: int | None = None
    iterations: int | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `fit`."""
        return self.model_dump(mode="json", exclude_none=True)

    def in_words(self) -> str:
        """The method and its numbers, e.g. "dual_is, query beta 15, gallery beta 5"."""
        numbers = [f"{name.replace('_', ' ')} {value:g}" for name, value in self.arguments.items() if name != "method"]
        return ", ".join([self.method.value, *numbers])


def make_grid(
    methods: Iterable[Method], betas: Mapping[str, Sequence[float]], *, activation_k: int, nnn_k: int, iterations: int
) -> list[Setting]:
    """All settings, simplest method first, then by ascending betas; `raw` always among them.

    A gallery beta of 0 makes `is` of `dual_is`, and `dis` of `dual_dis`.
    """
    asked = {Method.RAW, *methods}
    found: dict[Setting, None] = {}
    for method in SIMPLEST_FIRST:
        if method is Method.RAW:
            found[Setting(method=method)] = None
        elif method is Method.NNN and method in asked:
            found |= {Setting(method=method, nnn_alpha=alpha, nnn_k=nnn_k): None for alpha in NNN_ALPHAS}
        elif method is Method.SINKHORN and method in asked:
            found |= {Setting(method=method, query_beta=beta, iterations=iterations): None for beta in betas["query"]}
        elif method in (Method.IS, Method.DIS):
            dual = Method.DUAL_DIS if method.dynamic else Method.DUAL_IS
            if method in asked or (dual in asked and 0 in betas["gallery"]):
                gates = {"activation_k": activation_k} if method.dynamic else {}
                found |= {Setting(method=method, query_beta=beta, **gates): None for beta in betas["query"]}
        elif method in asked and method in (Method.DUAL_IS, Method.DUAL_DIS):
            gates = {"activation_k": activation_k} if method.dynamic else {}
            found |= {
                Setting(method=method, query_beta=query, gallery_beta=gallery, **gates): None
                for query in betas["query"]
                for gallery in betas["gallery"]
                if gallery
            }
    return list(found)


def parse_methods(methods: Iterable[str | Method] | None, banks: Iterable[str]) -> list[Method]:
    """The methods to try: those named, or by default all that these banks allow.

    Raises:
        UnsupportedMethodError: there is no such method, or a bank that it needs was not given.
    """
    given = set(banks)
    if methods is None:
        return [method for method in DEFAULT_METHODS if given >= set(method.banks)]
    if isinstance(methods, str):
        methods = [methods]
    parsed = [Method.parse(method) for method in methods]
    for method in parsed:
        missing = [bank for bank in method.banks if bank not in given]
        if missing:
            raise UnsupportedMethodError(
                f"method {method.value!r} needs a {missing[0]} bank: pass {missing[0]}_bank=..., or leave it out"
            )
    return parsed


def parse_betas(betas: BetaInput | None) -> dict[str, tuple[float, ...]]:
    """The betas asked for, of each bank, ascending; empty where they are to be chosen.

    Raises:
        InvalidParameterError: not numbers above 0 (for the gallery bank, at least 0).
    """
    if betas is None:
        return {}
    given = betas if isinstance(betas, Mapping) else {"query": betas, "gallery": (0, *betas)}
    strangers = [name for name in given if name not in BANKS]
    if strangers:
        raise InvalidParameterError(
            f"betas are a sequence for both banks, or by bank, {' and '.join(BANKS)}; got {strangers[0]!r}"
        )
    found = {}
    for name, values in given.items():
        if isinstance(values, str) or not isinstance(values, Iterable) or not list(values):
            raise InvalidParameterError(f"{name} betas must be a list of numbers, got {values!r}")
        zero = name == "gallery"
        checked = {
            0.0 if zero and not isinstance(beta, bool) and beta == 0 else check_beta(beta, what=f"{name} betas")
            for beta in values
        }
        found[name] = tuple(sorted(checked))
    return found


def default_betas(bank: str, spread: float) -> tuple[float, ...]:
    """Betas that make sense for similarities of that standard deviation, in round numbers; of the gallery 0 too."""
    low, high = _SPREADS[bank]
    if not (math.isfinite(spread) and spread > 0):
        return (1.0,) if bank == "query" else (0.0, 1.0)
    first, last = math.floor(math.log10(low / spread)), math.floor(math.log10(high / spread))
    steps = [float(f"{step * 10.0**power:.6g}") for power in range(first, last + 1) for step in _STEPS[bank]]
    chosen = tuple(beta for beta in steps if low <= beta * spread <= high)
    return chosen if bank == "query" else (0.0, *chosen)
