"""DBNorm on Milvus: wrap a collection, fit once, search without hubs."""

from dbnorm_vdb.errors import MissingDependencyError

try:
    import pymilvus as _client  # noqa: F401
except ImportError as error:
    raise MissingDependencyError("pymilvus", "milvus", "dbnorm_milvus") from error

from dbnorm_milvus.adapter import MilvusAdapter
from dbnorm_milvus.asynchronous import AsyncMilvusAdapter
from dbnorm_milvus.folded import FoldedMilvusAdapter
from dbnorm_milvus.wrapping import wrap

__all__ = ["AsyncMilvusAdapter", "FoldedMilvusAdapter", "MilvusAdapter", "wrap"]
