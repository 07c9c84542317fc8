"""DBNorm on Qdrant: wrap a collection, fit once, search without hubs."""

from dbnorm_vdb.errors import MissingDependencyError

try:
    import qdrant_client as _client  # noqa: F401
except ImportError as error:
    raise MissingDependencyError("qdrant-client", "qdrant", "dbnorm_qdrant") from error

from dbnorm_qdrant.adapter import QdrantAdapter
from dbnorm_qdrant.asynchronous import AsyncQdrantAdapter
from dbnorm_qdrant.folded import FoldedQdrantAdapter
from dbnorm_qdrant.wrapping import wrap

__all__ = ["AsyncQdrantAdapter", "FoldedQdrantAdapter", "QdrantAdapter", "wrap"]
