"""The report: one HTML file that needs nothing else, not even a network.

Whatever a database holds is hostile until it is escaped: the templates escape all that is put into them, pictures are
decoded and made anew, and a Content-Security-Policy allows the page no script, no address and no style but its own.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from dbnorm_vdb.errors import InvalidParameterError, MissingDependencyError
from dbnorm_vdb.evaluation.results import Comparison
from dbnorm_vdb.report import views
from dbnorm_vdb.report.figures import charts_of
from dbnorm_vdb.report.items import Items, Payloads, queries_of
from dbnorm_vdb.report.pictures import Pictures, Root
from dbnorm_vdb.report.text import NAME_LENGTH, shown, whole

LARGEST = 3_000_000
"""Bytes that a report has at most."""


class Extent(NamedTuple):
    """How much of the pictures goes in: examples of each arm and reason, hubs of each arm, pixels of a picture."""

    examples: int
    hubs: int
    pixels: int


EXTENTS = (Extent(10, 9, 144), Extent(10, 9, 96), Extent(6, 9, 96), Extent(3, 9, 64), Extent(1, 6, 32))
"""The first one that makes a report small enough is taken."""


def write_report(
    comparison: Comparison,
    path: str | os.PathLike[str],
    *,
    image_field: str | None = None,
    text_field: str | None = None,
    image_root: Root | None = None,
    payloads: Payloads | None = None,
) -> Path:
    """Write a comparison as one self-contained HTML file of less than 3 MB, which works offline.

    Args:
        comparison: what `compare` found, or `Comparison.load` read.
        path: the file; one that is there is replaced.
        image_field: of the payloads, for pictures: a `data:` URL, base64, or a path below `image_root`; `a.b` is field
            `b` of the object in field `a`. Pictures at other addresses are never loaded.
        text_field: of the payloads, for captions; the first few fields, if left out.
        image_root: the folder or zip archive that pictures' paths are relative to.
        payloads: of items, by id, if the comparison has none, since its arms are callables or saved runs.

    Returns:
        The path.

    Raises:
        InvalidParameterError: the file cannot be there, a field that no payload has, or no folder or archive.
        MissingDependencyError: Jinja, or with an `image_field` Pillow, is not installed (extra `report`).
    """
    target = check_report(path, image_field=image_field, image_root=image_root)
    page = render(comparison, image_field=image_field, text_field=text_field, image_root=image_root, payloads=payloads)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        partial.write_bytes(page)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def check_report(
    path: str | os.PathLike[str], *, image_field: str | None = None, image_root: Root | None = None
) -> Path:
    """What can be known before there is a comparison: that a report can be written there, with pictures from there.

    Raises:
        InvalidParameterError, MissingDependencyError: see `write_report`.
    """
    target = Path(path)
    if target.is_dir():
        raise InvalidParameterError(f"{str(target)!r} is a folder; a report is a file, such as report.html")
    if not target.parent.is_dir():
        raise InvalidParameterError(f"there is no folder {str(target.parent)!r} to write {target.name!r} into")
    _environment()
    Pictures(image_field, image_root)
    return target


def render(
    comparison: Comparison,
    *,
    image_field: str | None = None,
    text_field: str | None = None,
    image_root: Root | None = None,
    payloads: Payloads | None = None,
) -> bytes:
    """The file's content, see `write_report`."""
    environment = _environment()
    content: dict[str, Any] = {}
    for extent in EXTENTS:
        if not content or (content["examples"], content["hubs"]) != (extent.examples, extent.hubs):
            pictures = Pictures(image_field, image_root)
            items = Items(comparison, pictures, text_field, payloads)
            content = _content(comparison, items, pictures, extent)
        page = _page(environment, content, pictures.encoded(extent.pixels))
        if len(page) < LARGEST:
            return page
    raise InvalidParameterError(
        f"the report would have {len(page)} bytes, but {LARGEST} is the most: compare fewer arms, or by fewer measures"
    )


def _content(comparison: Comparison, items: Items, pictures: Pictures, extent: Extent) -> dict[str, Any]:
    """All that the template shows."""
    styles = views.arm_styles(comparison)
    baseline = views.name_of(comparison.baseline)
    others = [arm.name for arm in comparison.arms if arm.name != comparison.baseline]
    found = {
        "hub_views": items.hubs(styles, extent.hubs),
        "groups": items.examples(styles, extent.examples),
    }
    decisions = {verdict.decision for verdict in comparison.verdict.arms}
    order = ("better", "mixed", "worse", "undecided", "unjudged")
    return {
        **found,
        "examples": extent.examples,
        "hubs": extent.hubs,
        "title": f"{' and '.join(map(views.name_of, others))} against {baseline}",
        "baseline": baseline,
        "baseline_style": styles[comparison.baseline],
        "decision": next((decision for decision in order if decision in decisions), "unjudged"),
        "headline": shown(comparison.verdict.headline, 600),
        "cards": views.cards(comparison, styles),
        "queries": queries_of(comparison),
        "created": comparison.created_at.strftime("%d %B %Y, %H:%M %Z"),
        "version": shown(comparison.version, NAME_LENGTH),
        "settings": comparison.settings,
        "collections": [
            (shown(info.collection, NAME_LENGTH), shown(info.engine, NAME_LENGTH), info.item_count)
            for info in comparison.collections.values()
        ],
        "measures": comparison.measures,
        "effects": views.effect_table(comparison) if comparison.measures else None,
        "differences": [(views.name_of(arm), styles[arm], views.difference_rows(comparison, arm)) for arm in others]
        if comparison.differences
        else [],
        "hubness": views.hubness_table(comparison),
        "charts": {chart.key: chart for chart in charts_of(comparison, styles)},
        "tables": [
            table
            for table in (
                views.latency_table(comparison),
                views.agreement_table(comparison),
                views.arm_table(comparison),
            )
            if table is not None
        ],
        "notes": [*(shown(note, 600) for note in comparison.notes), *pictures.notes],
        "with_pictures": pictures.field is not None,
    }


def _page(environment: Any, content: dict[str, Any], encoded: list[str]) -> bytes:
    style = (files("dbnorm_vdb.report") / "templates" / "report.css").read_text(encoding="utf-8")
    style += "".join(
        f".p{number}{{background-image:url(data:image/webp;base64,{text})}}\n" for number, text in enumerate(encoded)
    )
    from markupsafe import Markup  # comes with Jinja

    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # nothing of a payload is in it: Pillow made the pictures anew, and base64 has no < or quote
    style = Markup(style)  # noqa: S704
    page: str = environment.get_template("report.html").render(**content, style=style, style_digest=digest)
    return page.encode("utf-8")


def _environment() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependencyError("jinja2", "report", "a report") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dbnorm_vdb.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = whole
    return environment
