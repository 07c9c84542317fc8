"""Text from a database, made fit to be shown; and figures in words.

Escaping for HTML is the template's; here goes what escaping leaves: control characters, characters that reorder what
stands around them, lone surrogates, which no file can hold, and texts without end.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from itertools import islice
from typing import Any

from dbnorm_vdb.evaluation.results import Interval, MeasureInfo

NAME_LENGTH = 60
TEXT_LENGTH = 240
MINUS = "\u2212"

_REORDERING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C}
_JOINERS = {0x200C, 0x200D}  # scripts and emoji need them


def shown(value: object, length: int = TEXT_LENGTH) -> str:
    """A value as one line of visible text, cut to `length` characters.

    Control characters become their pictures (U+2400 and on), characters that reorder text their names (`[U+202E]`),
    other invisible ones are left out, lone surrogates become U+FFFD.
    """
    text = " ".join(str(value)[: 4 * length].split())
    cut = len(text) > length or len(str(value)) > 4 * length
    visible = "".join(_visible(character) for character in text[:length])
    return visible.rstrip() + "…" if cut else visible


def _visible(character: str) -> str:
    code = ord(character)
    category = unicodedata.category(character)
    if code in _REORDERING:
        return f"[U+{code:04X}]"
    if category == "Cc":
        return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "\ufffd"
    if category == "Cs" or code & 0xFFFE == 0xFFFE:
        return "\ufffd"
    if category == "Cf" and code not in _JOINERS:
        return ""
    return character


def field_of(payload: Mapping[str, Any], field: str) -> Any:
    """The value of a payload's field; `a.b` is field `b` of the object in field `a`. None where there is none."""
    if field in payload:
        return payload[field]
    first, dot, rest = field.partition(".")
    inner = payload.get(first)
    return field_of(inner, rest) if dot and isinstance(inner, Mapping) else None


def preview(payload: Mapping[str, Any], without: str | None = None, fields: int = 3) -> str:
    """The first few fields of a payload that are text or numbers, in one line."""
    simple = (
        f"{shown(name, 30)}: {shown(value, 60)}"
        for name, value in payload.items()
        if name != without and isinstance(value, (str, int, float)) and not isinstance(value, bool)
    )
    return " · ".join(islice(simple, fields))


def figure(value: float, measure: MeasureInfo) -> str:
    """A measure's figure: ranks in four digits, others to four places."""
    return f"{value:.4g}" if not measure.larger_is_better or abs(value) > 1 else f"{value:.4f}"


def change(value: float) -> str:
    """A difference with its sign, a true minus."""
    text = f"{value:+.4f}" if abs(value) < 1 else f"{value:+.4g}"
    return text.replace("-", MINUS)


def interval(found: Interval, measure: MeasureInfo) -> str:
    """The two ends of an interval of a measure."""
    return f"{figure(found.low, measure)} to {figure(found.high, measure)}"


def p_value(p: float) -> str:
    """A p-value, as exactly as it says something."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def percent(share: float) -> str:
    """A share in percent, to one place."""
    return f"{100 * share:.1f}\u00a0%"


def count(number: int, one: str, many: str) -> str:
    """A number with its noun, thousands apart."""
    return f"{whole(number)} {one if number == 1 else many}"


def whole(number: float) -> str:
    """A whole number, thousands apart."""
    return f"{number:,.0f}".replace(",", "\u202f")
