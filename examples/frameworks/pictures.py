"""What the examples here share: pictures and captions with their embeddings, and how they show what a store finds."""

from collections.abc import Sequence

from dbnorm_vdb.demo import load_pictures

_DATA = load_pictures()

CAPTIONS: list[str] = [record["text"] for record in _DATA.test.records]
PICTURES: list[list[float]] = _DATA.test.pictures.tolist()
SIZE = len(PICTURES[0])
BANKS = {"query_bank": _DATA.train.texts, "gallery_bank": _DATA.train.pictures, "query_beta": 20, "gallery_beta": 5}
"""What to fit with: captions and pictures that are not in the collection, and how strongly hubs are held down."""

_ROWS = {caption: row for row, caption in enumerate(CAPTIONS)}

ASKED = next(caption for caption in CAPTIONS if caption.startswith("pasta;"))
"""A caption before whose picture hubs come."""


def picture_of(caption: str) -> list[float]:
    """The embedding of the picture with that caption: what an image model would make of it."""
    return PICTURES[_ROWS.get(caption, 0)]  # LangChain asks for one of a text of its own, to learn its size


def embed(caption: str) -> list[float]:
    """The embedding of the caption itself: what a text model would make of it."""
    vector: list[float] = _DATA.test.texts[_ROWS[caption]].tolist()
    return vector


def show(how: str, found: Sequence[str]) -> None:
    """Print the captions of the pictures that were found, the right one marked."""
    print(f"{ASKED!r}, {how}:")
    for caption in found:
        print(f"  {'✓' if caption == ASKED else ' '} {caption:.60}")
