"""The points of an embedded Qdrant, counted where they lie.

Local mode evaluates a filter point by point in Python. A fit counts twice, and that would be a sixth of its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal


def is_local(client: Any) -> bool:
    """Whether the client is an engine itself, in our own process."""
    return isinstance(client._client, (QdrantLocal, AsyncQdrantLocal))


def count_with_value(client: Any, collection: str, *path: str) -> int | None:
    """How many points have a value at a path of payload keys, as the filter `is_empty` means it; None for a server.

    What it looks at is not public, so it may not be there in all versions: then it is None, too.
    """
    if not is_local(client):
        return None
    try:
        held = client._client._get_collection(collection)
        points = zip(held.payload, held.deleted.tolist(), strict=False)  # somebody may just be inserting one
    except AttributeError:
        return None
    return sum(not deleted and _has_value(payload, path) for payload, deleted in points)


def _has_value(value: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return value is not None and value != []
