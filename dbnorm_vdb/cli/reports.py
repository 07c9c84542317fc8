"""The command `report`, and the options of commands that write one."""

from __future__ import annotations

from typing import Annotated

import typer

from dbnorm_vdb.cli.app import app
from dbnorm_vdb.cli.console import output, print_json
from dbnorm_vdb.cli.options import AsJson
from dbnorm_vdb.evaluation.results import Comparison
from dbnorm_vdb.report import check_report

ImageField = Annotated[
    str | None,
    typer.Option(help="Field of the payloads with a picture: a data: URL, base64, or a path below --image-root."),
]
ImageRoot = Annotated[
    str | None, typer.Option(help="Folder or zip archive of the pictures; without it no value is taken for a path.")
]
TextField = Annotated[
    str | None, typer.Option(help="Field of the payloads that captions items; default: the first few fields.")
]


@app.command()
def report(
    comparison: Annotated[str, typer.Argument(help="What a comparison saved: its folder, or comparison.json.")],
    path: Annotated[str, typer.Argument(help="The HTML file to write.")] = "report.html",
    image_field: ImageField = None,
    image_root: ImageRoot = None,
    text_field: TextField = None,
    as_json: AsJson = False,
) -> None:
    """Write a saved comparison as one HTML file that works offline."""
    check_report(path, image_field=image_field, image_root=image_root)
    found = Comparison.load(comparison)
    written = found.report(path, image_field=image_field, image_root=image_root, text_field=text_field)
    size = written.stat().st_size
    if as_json:
        print_json({"path": str(written), "bytes": size})
    else:
        output.print(f"{written}: {size / 1e6:.1f} MB", markup=False, highlight=False, soft_wrap=True)
