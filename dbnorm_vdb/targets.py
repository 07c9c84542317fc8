"""From a command-line URL to an adapter, found by the entry-point group `dbnorm_vdb.adapters`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from dbnorm_vdb.errors import InvalidTargetError

if TYPE_CHECKING:
    from dbnorm_vdb.collection import NormalizedCollection

GROUP = "dbnorm_vdb.adapters"
EXAMPLES = (
    "qdrant+http://host:6333/images, qdrant:///path/images, milvus+http://host:19530/images, milvus:///file.db/images"
)


@dataclass(frozen=True)
class Target:
    """A parsed URL. It holds no credentials: these come from the environment.

    Attributes:
        engine: the adapter's name, "qdrant" or "milvus".
        server: the server's URL, or "" for files.
        path: the files' path, or what stands before the collection on the server ("" for nothing).
        collection: the collection's name.
        options: what stands behind the "?", of the names allowed.
    """

    engine: str
    server: str
    path: str
    collection: str
    options: dict[str, str]

    @classmethod
    def parse(cls, url: str, *, options: tuple[str, ...] = ("vector", "db")) -> Target:
        """Parse `engine+http://host:port/collection`, `engine+https://...` or `engine:///path/collection`.

        Raises:
            InvalidTargetError: not such a URL. The message never repeats a URL that may hold credentials.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidTargetError(f"the target is not a URL: {error}; use e.g. {EXAMPLES}") from error
        if "@" in parts.netloc:
            raise InvalidTargetError(
                "credentials do not belong into the URL; set QDRANT_API_KEY or MILVUS_TOKEN in the environment"
            )
        if parts.fragment or url.endswith("#"):
            raise InvalidTargetError(
                "what stands behind the '#' in the URL would be cut off; write %23 for a '#' that is part of a name"
            )
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = sorted(set(given) - set(options))
        if unknown:
            raise InvalidTargetError(f"unknown option {unknown[0]!r} in the URL; there are {', '.join(options)}")
        engine, plus, protocol = parts.scheme.partition("+")
        path, _, collection = unquote(parts.path).rpartition("/")
        if not engine:
            raise InvalidTargetError(f"{url!r} is not a target; use a URL such as {EXAMPLES}")
        if not collection:
            raise InvalidTargetError(f"the URL names no collection; use e.g. {EXAMPLES}")
        if plus and (protocol not in ("http", "https") or not parts.hostname):
            raise InvalidTargetError(f"a server is {engine}+http://host:port/collection, or with https")
        if not plus and (parts.netloc or not path):
            raise InvalidTargetError(
                f"files are {engine}:///path/collection; a server is {engine}+http://host/collection"
            )
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        server = f"{protocol}://{host}" + (f":{port}" if port else "") if plus else ""
        return cls(engine, server, path, collection, given)


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
        InvalidTargetError: not such a URL, or files that do not exist.
    """
    target = Target.parse(url)
    return adapter_class(target.engine).from_target(target)
