"""From a command-line URL to an adapter, found by the entry-point group `dbnorm_vdb.adapters`."""

from __future__ import annotations

from importlib.metadata import entry_points

from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.errors import InvalidTargetError

GROUP = "dbnorm_vdb.adapters"
EXAMPLES = (
    "qdrant+http://host:6333/images, qdrant:///path/images, milvus+http://host:19530/images, milvus:///file.db/images"
)


def adapter_class(engine: str) -> type[NormalizedCollection]:
    """The adapter class of an engine.

    Raises:
        InvalidTargetError: no installed adapter is registered under that name.
        MissingDependencyError: the adapter's client is not installed.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if engine not in found:
        raise InvalidTargetError(f"no adapter for {engine!r}; there are {', '.join(sorted(found)) or 'none installed'}")
    loaded: type[NormalizedCollection] = found[engine].load()
    return loaded


def open_target(url: str) -> NormalizedCollection:
    """The adapter of a URL such as `qdrant+http://host:6333/images` or `milvus:///path/file.db/images`.

    Raises:
        InvalidTargetError: not such a URL.
    """
    scheme, colon, _ = url.partition(":")
    if not colon:
        raise InvalidTargetError(f"{url!r} is not a target; use a URL such as {EXAMPLES}")
    return adapter_class(scheme.partition("+")[0]).from_url(url)
