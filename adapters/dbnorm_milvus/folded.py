"""FoldedMilvusAdapter: `MilvusClient.search` of a folded copy, as if it were the collection that was copied."""

from __future__ import annotations

from typing import Any

from pymilvus import MilvusClient

from dbnorm_milvus.queries import check_dense
from dbnorm_milvus.results import keep_hits
from dbnorm_vdb.errors import StatisticsMismatchError, UnsupportedQueryError
from dbnorm_vdb.folded import FoldedCollection, folded_queries
from dbnorm_vdb.folding import FOLDED_KEY, FoldedStatistics
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.statistics import Metric

_REFUSED = ("ids", "ranker", "function_chains")


class FoldedMilvusAdapter(FoldedCollection):
    """A copy that `MilvusAdapter.fold` made. Its searches return what exact searches of the source returned. See
    `FoldedCollection` for its arguments.

    Example:
        >>> images.fold("images_folded")  # doctest: +SKIP
        >>> FoldedMilvusAdapter(client, "images_folded").search(data=[vector], limit=10)  # doctest: +SKIP
    """

    client: MilvusClient

    def _read_document(self) -> object | None:
        document: object = (self.client.describe_collection(self.collection_name).get("properties") or {}).get(
            FOLDED_KEY
        )
        return document

    def search(
        self,
        data: Any = None,
        filter: str = "",
        limit: int = 10,
        output_fields: list[str] | None = None,
        search_params: dict[str, Any] | None = None,
        timeout: float | None = None,
        partition_names: list[str] | None = None,
        anns_field: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """`MilvusClient.search`, normalised: distances are those of `MilvusAdapter.search(exact=True)`.

        Args:
            data: (q, d) query vectors of the source's dimension.
            **kwargs: what else the client takes (`offset`, `group_by_field`, ...), handed on.

        Returns:
            The client's result. Vectors come without the dimension that was added (cosine: at unit length).

        Raises:
            DimensionMismatchError, NonFiniteVectorError, ZeroVectorError: the query vectors cannot be used.
            UnsupportedQueryError: searches by primary key, rankers, sparse or text queries.
            NotFittedError: the collection is not a complete folded copy.
        """
        check_count(limit, what="limit")
        folded = self.statistics
        if anns_field is not None and anns_field != folded.vector:
            raise StatisticsMismatchError(
                f"field {folded.vector!r} of this copy is folded, the search is on {anns_field!r}; use the client"
            )
        refused = [name for name in _REFUSED if kwargs.get(name) is not None]
        if refused:
            raise UnsupportedQueryError(f"a search with {', '.join(refused)} is not folded; pass query vectors as data")
        vectors = check_dense(data, folded.metric)
        if vectors is None:
            raise UnsupportedQueryError("data has to be an (n, d) array of query vectors: [vector] for one")
        euclidean = folded.metric is Metric.EUCLIDEAN
        digits = kwargs.pop("round_decimal", None) if euclidean else None
        results = self.client.search(
            self.collection_name,
            data=folded_queries(vectors, folded),
            filter=filter,
            limit=limit,
            output_fields=output_fields,
            search_params=_folded_params(search_params, folded),
            timeout=timeout,
            partition_names=partition_names,
            anns_field=folded.vector,
            **kwargs,
        )
        unfold = bool({"*", folded.vector}.intersection(output_fields or ()))
        for hits in results if euclidean or unfold else ():
            distances = [d + folded.lowest if euclidean else d for d in hits.distances]
            keep_hits(hits, range(len(distances)), [round(d, digits) for d in distances] if digits else distances)
            for hit in hits if unfold else ():
                hit["entity"][folded.vector] = hit["entity"][folded.vector][: folded.dimension]
        return results


def _folded_params(params: dict[str, Any] | None, folded: FoldedStatistics) -> dict[str, Any]:
    """Search parameters on the scale of the folded vectors: the metric, and the bounds of range searches."""
    euclidean = folded.metric is Metric.EUCLIDEAN
    changed = {}
    for name, value in (params or {}).items():
        if name == "params" and isinstance(value, dict):
            value = _folded_params(value, folded)
        elif name == "metric_type":
            value = "L2" if euclidean else "IP"
        elif name in ("radius", "range_filter") and euclidean and value is not None:
            value = max(float(value) - folded.lowest, 0.0)
        changed[name] = value
    return changed
