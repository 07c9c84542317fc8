"""Folding: a copy of a collection whose vectors carry the bias as one more dimension.

For the additive methods (`is`, `dual_is`, `sinkhorn`, `nnn`) the normalised similarity of an item is its similarity
minus a number of its own, the adjustment `c`. So it is a similarity again, of vectors that are one dimension longer:

- cosine: `<(q/|q|, 1), (v/|v|, -c)>`; dot product: `<(q, 1), (v, -c)>`. The copy is compared by inner product;
- Euclidean: `|(q, 0) - (v, sqrt(c - m))|^2 = |q - v|^2 + c - m`, where `m` is less than every `c`. The copy is compared
  by Euclidean distance, so that no precision is lost on long vectors.

Searching the copy needs no over-fetch, and no statistics.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, Field, FiniteFloat, ValidationError

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.errors import StatisticsError, StatisticsFormatError, UnsupportedMethodError
from dbnorm_vdb.methods import Method, additive_weights, adjustments_of, check_supported, form_of, lowest_adjustment
from dbnorm_vdb.statistics import (
    FORMAT_VERSION,
    Booleans,
    CollectionStatistics,
    Floats,
    Generation,
    ItemStatistics,
    Metric,
)
from dbnorm_vdb.stored import Count, Stored
from dbnorm_vdb.version import __version__

FOLDED_KEY = "dbnorm_folded"


class FoldedStatistics(Stored):
    """What is stored with a folded copy: what it was made of, and how queries have to be folded.

    Attributes:
        source: the collection that was copied.
        vector: the folded vector name or field; "" for Qdrant's unnamed vector.
        dimension: of the source's vectors; those of the copy have one more.
        metric: of the source.
        method: whose normalisation the copy carries.
        generation: of the statistics that it was made with.
        revision: of the same.
        lowest: `m`, less than every adjustment (Euclidean only).
        item_count: items in the copy when it was complete.
        complete: whether all items are there, and verified.
        folded_at: when it was complete, or begun.
    """

    format_version: int = FORMAT_VERSION
    source: str
    vector: str
    dimension: int = Field(ge=1)
    metric: Metric
    method: Method
    generation: Generation
    revision: Count
    lowest: FiniteFloat
    item_count: Count = 0
    complete: bool = False
    folded_at: AwareDatetime
    library_version: str = ""

    @classmethod
    def load(cls, stored: object, *, collection: str) -> FoldedStatistics:
        """Read it back: JSON text or JSON types.

        Raises:
            StatisticsFormatError: not ours, invalid, or of another format version.
        """
        try:
            document = json.loads(stored) if isinstance(stored, str) else stored
            folded = cls.model_validate(document)
        except (ValidationError, ValueError, RecursionError) as error:
            raise StatisticsFormatError(
                f"collection {collection!r}: what is stored under the key {FOLDED_KEY!r} is not that of a folded copy;"
                " delete the collection and fold again"
            ) from error
        if folded.format_version != FORMAT_VERSION:
            raise StatisticsFormatError(
                f"collection {collection!r} was folded in format version {folded.format_version}, this library reads"
                f" {FORMAT_VERSION}; use the library that made it, or fold again"
            )
        return folded

    def folded_items(self, vectors: Vectors, adjustments: Floats) -> Vectors:
        """(n, d) item vectors and their (n,) adjustments -> (n, d + 1) float32."""
        last = -adjustments
        if self.metric is Metric.EUCLIDEAN:
            if (adjustments < self.lowest).any():
                raise StatisticsError(
                    f"collection {self.source!r} has items of lower bias than its statistics say; refresh() it, delete"
                    " the unfinished copy, and fold again"
                )
            last = np.sqrt(adjustments - self.lowest)
        rows = vectors.astype(np.float64)
        if self.metric is Metric.COSINE:
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            rows /= np.where(lengths > 0, lengths, 1.0)
        return np.column_stack([rows, last]).astype(np.float32)

    def folded_queries(self, queries: npt.NDArray[Any]) -> Vectors:
        """(q, d) query vectors -> (q, d + 1) float32."""
        rows = queries.astype(np.float64)
        if self.metric is Metric.COSINE:
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        last = np.full(len(rows), 0.0 if self.metric is Metric.EUCLIDEAN else 1.0)
        return np.column_stack([rows, last]).astype(np.float32)


def check_foldable(method: str | Method, statistics: CollectionStatistics) -> Method:
    """The method, if what it subtracts from an item is the same for all queries.

    Raises:
        UnsupportedMethodError: it is not, or the statistics cannot serve it.
    """
    chosen = check_supported(method, statistics)
    if chosen.dynamic or chosen is Method.RAW:
        why = "its gates differ from query to query" if chosen.dynamic else "there is nothing to fold"
        raise UnsupportedMethodError(
            f"method {chosen.value!r} cannot be folded: {why}; use is, dual_is, sinkhorn or nnn, as far as fitted"
        )
    return chosen


def combined_adjustments(
    method: Method, items: ItemStatistics, statistics: CollectionStatistics
) -> tuple[Floats, Booleans]:
    """(n,) what an additive method subtracts from the similarities of n items, and (n,) which have statistics."""
    weights = additive_weights(form_of(method, {}), statistics)
    adjustments = adjustments_of(statistics, items, weights)
    total = sum((weight * adjustments[name].values for name, weight in weights.items()), np.zeros(len(items)))
    known = ~np.logical_or.reduce([np.isnan(items.bias(name)) for name in weights])
    return total, known


def folded_statistics(statistics: CollectionStatistics, method: Method, source: str) -> FoldedStatistics:
    """What is stored with a copy that is yet to be filled."""
    return FoldedStatistics(
        source=source,
        vector=statistics.vector,
        dimension=statistics.dimension,
        metric=statistics.metric,
        method=method,
        generation=statistics.generation,
        revision=statistics.revision,
        lowest=2 * lowest_adjustment(form_of(method, {}), statistics),  # items may still be written that are lower
        folded_at=datetime.now(timezone.utc),
        library_version=__version__,
    )
