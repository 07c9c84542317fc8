"""Pictures of payloads: found, decoded with care, shrunk, and put into the page itself.

Nothing is fetched. What comes out is always a WebP of our own making, whatever the payload holds.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from dbnorm_vdb.errors import InvalidParameterError, MissingDependencyError
from dbnorm_vdb.report.text import count, field_of

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
LARGEST = 160
"""Pixels of the longer side that a picture is kept with; the page may show it smaller."""

_MOST_BYTES = 32_000_000
_MOST_PIXELS = 50_000_000
_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40}(;[\w=.-]{1,40}){0,4};base64,", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)
_SHORTEST_BASE64 = 32

Root: TypeAlias = "str | os.PathLike[str]"

_REASONS = {
    "remote": "{} at an address elsewhere: a report loads nothing from there; give the files with image_root",
    "missing": "{} not under image_root",
    "unreadable": "{} no PNG, JPEG, WebP, GIF or BMP that can be decoded",
}


class Pictures:
    """The pictures that a report shows, each once.

    Args:
        field: of the payloads; its value is a `data:` URL, base64, or a path below `root`. None for no pictures.
        root: a folder or a zip archive that paths are relative to. None takes no value for a path.

    Raises:
        MissingDependencyError: Pillow is not installed.
        InvalidParameterError: the root is no folder and no archive.
    """

    def __init__(self, field: str | None = None, root: Root | None = None) -> None:
        if field is not None:
            _pillow()
        if root is not None and field is None:
            raise InvalidParameterError("image_root says where pictures are, but no image_field says which: give both")
        self.field = field
        self._root = None if root is None else _opened(root)
        self._images: list[Any] = []
        self._known: dict[str, int | None] = {}
        self._failed: Counter[str] = Counter()

    def add(self, payload: Mapping[str, Any]) -> int | None:
        """The number of the payload's picture; None where it has none that can be shown."""
        value = None if self.field is None else field_of(payload, self.field)
        if not isinstance(value, str) or not value:
            return None
        if value not in self._known:
            image = self._image(value)
            self._known[value] = None if image is None else len(self._images)
            if image is not None:
                self._images.append(image)
        return self._known[value]

    def encoded(self, size: int) -> list[str]:
        """Every picture as base64 of a WebP whose longer side has at most `size` pixels."""
        return [_encoded(image, size) for image in self._images]

    @property
    def notes(self) -> list[str]:
        """What a reader has to know of pictures that are not shown."""
        return [
            _REASONS[reason].format(count(number, "picture is", "pictures are")) + "."
            for reason, number in self._failed.items()
        ]

    def _image(self, value: str) -> Any:
        content = self._content(value)
        image = _decoded(content) if isinstance(content, bytes) else None
        if image is None:
            self._failed[content if isinstance(content, str) else "unreadable"] += 1
        return image

    def _content(self, value: str) -> bytes | str:
        """The bytes of a picture, or the reason why there are none."""
        if found := _DATA_URL.match(value):
            return _from_base64(value[found.end() :])
        if _SCHEME.match(value):
            return "remote"
        if self._root is not None:
            return _file(self._root, value)
        return _from_base64(value) if len(value) >= _SHORTEST_BASE64 else "unreadable"


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("pillow", "report", "a report with pictures") from error
    return Image


def _opened(root: Root) -> Path | zipfile.Path:
    path = Path(root)
    if path.is_dir():
        return path.resolve()
    if zipfile.is_zipfile(path):
        return zipfile.Path(path)
    raise InvalidParameterError(f"image_root {str(path)!r} is no folder and no zip archive")


def _file(root: Path | zipfile.Path, name: str) -> bytes | str:
    """A file below the root, whatever its name says."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    try:
        file = root.joinpath(*(part for part in parts if part != "/"))
        if isinstance(file, Path) and not file.resolve().is_relative_to(root):  # type: ignore[arg-type]
            return "missing"
        if not file.is_file():
            return "missing"
        with file.open("rb") as opened:
            content: bytes = opened.read(_MOST_BYTES + 1)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return "missing"
    return content


def _from_base64(text: str) -> bytes | str:
    if len(text) > 2 * _MOST_BYTES:
        return "unreadable"
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return "unreadable"


def _decoded(content: bytes) -> Any:
    """The picture in RGB or RGBA, shrunk to `LARGEST`; None if it cannot be decoded."""
    image_module = _pillow()
    if len(content) > _MOST_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with image_module.open(io.BytesIO(content), formats=FORMATS) as opened:
                if opened.width * opened.height > _MOST_PIXELS:
                    return None
                opened.draft("RGB", (LARGEST, LARGEST))
                image = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    except Exception:  # decoders raise anything at bytes that were made to break them
        return None
    image.thumbnail((LARGEST, LARGEST))
    return image


def _encoded(image: Any, size: int) -> str:
    small = image.copy()
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=72, method=4)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
