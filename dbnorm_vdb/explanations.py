"""What is told of an item's place among the results of a query: as data, and in words."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from dbnorm_vdb.methods import Method
from dbnorm_vdb.statistics import BANKS, ItemId, Metric

LIMIT = 10
"""The results of a search whose default window is told of."""


class Term(BaseModel):
    """What one bias does to the item's score. All on the similarity scale.

    Attributes:
        name: the bank that the bias is against, "query" or "gallery"; or "sinkhorn" or "nnn".
        bias: the item's; None where it has no statistics and counts as an average item.
        mean: over the collection.
        weight: what the difference is multiplied by.
        change: `weight * (mean - bias)`: what is added to the similarity; below 0 for more of a hub than most.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    bias: float | None
    mean: float
    weight: float
    change: float


class ItemExplanation(BaseModel):
    """How one item comes to its place among the results of one query. In words when printed.

    The normalised similarity is `similarity`, plus the `change` of each term, plus `logarithm`; the scores are the
    same on the engine's scale.

    Attributes:
        id: of the item.
        payload: its payload or fields.
        method: how it was scored; `raw` also where nothing is fitted.
        metric: how the collection compares vectors.
        raw_score: the engine's; where the item was not reached, computed from its vector.
        raw_rank: from 1, in the engine's order; None where the item was not reached.
        score: normalised.
        rank: among the candidates, normalised; None where the item was not reached.
        certain: whether `rank` is that in the whole collection, as far as the engine's order can be trusted.
        similarity, normalized_similarity: larger is nearer; Euclidean as negative squared distance.
        terms: the biases that count for this query.
        gates: of dynamic methods: for each bank whether it counts, which is if the query's nearest item, `nearest_id`,
            is in its activation set.
        nearest_id: the query's nearest item.
        logarithm: what `dual_dis` adds where one gate is open: `log(similarity) / beta`, or, for similarities of at
            most 0, what places them after all others. None where nothing.
        candidates: how many items were looked at.
        default_candidates: how many a search for ten results looks at.
    """

    model_config = ConfigDict(frozen=True)

    id: ItemId
    payload: dict[str, Any]
    method: Method
    metric: Metric
    raw_score: float
    raw_rank: int | None
    score: float
    rank: int | None
    certain: bool
    similarity: float
    normalized_similarity: float
    terms: list[Term]
    gates: dict[str, bool]
    nearest_id: ItemId
    logarithm: float | None
    candidates: int
    default_candidates: int

    def __str__(self) -> str:
        return self.in_words()

    def in_words(self) -> str:
        """Several lines of text."""
        rows = self.rows
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = [f"  {name:<{widths[0]}}  {figure:>{widths[1]}}  {words}" for name, figure, words in rows]
        return "\n".join([self.headline, "", *lines, *(["", *self.remarks] if self.remarks else [])])

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """From the raw score to the normalised one: names, figures, and what is to be said of them."""
        rows = [("raw score", f"{self.raw_score:.4f}", self._raw_rank_in_words())]
        for bank, opened in self.gates.items():
            place = f"nearest item {self.nearest_id} is {'in' if opened else 'not in'} its activation set"
            rows.append((f"{bank} gate", "open" if opened else "closed", place))
        rows += [(_title(term.name), f"{term.change:+.4f}", _term_in_words(term)) for term in self.terms]
        if self.logarithm is not None:
            meaning = "log(similarity) / beta" if self.similarity > 0 else "below all items of positive similarity"
            rows.append(("one gate open", f"{self.logarithm:+.4f}", meaning))
        if self.method is not Method.RAW:
            rows.append(("normalised score", f"{self.score:.4f}", self._rank_in_words()))
        return rows

    @property
    def headline(self) -> str:
        """What happens to the item, in a sentence."""
        if self.raw_rank is None or self.rank is None:
            return f"Item {self.id} is not among the {self.candidates} items nearest to the query."
        if self.method is Method.RAW:
            return f"Item {self.id} has rank {self.raw_rank}. Results are raw."
        if self.rank == self.raw_rank:
            return f"Item {self.id} keeps rank {self.rank} under {self.method.value}."
        verb = "rises" if self.rank < self.raw_rank else "falls"
        return f"Item {self.id} {verb} from rank {self.raw_rank} to rank {self.rank} under {self.method.value}."

    def _raw_rank_in_words(self) -> str:
        if self.raw_rank is None:
            return f"computed from its vector; its rank is beyond {self.candidates}"
        return f"rank {self.raw_rank} in the engine's order"

    def _rank_in_words(self) -> str:
        if self.rank is None:
            return "its rank is not known"
        if self.certain:
            return f"rank {self.rank} of the whole collection"
        return f"rank {self.rank} of {self.candidates} candidates; items beyond may come before it"

    @property
    def remarks(self) -> list[str]:
        """What else there is to say, in sentences."""
        remarks = []
        if any(term.bias is None for term in self.terms):
            remarks.append("It has no statistics and counts as an average item, until the next refresh.")
        if self.metric is Metric.EUCLIDEAN and self.terms:
            remarks.append("Changes are on the similarity scale, the negative squared distance.")
        if self.method is not Method.RAW and (self.raw_rank or self.candidates + 1) > self.default_candidates:
            remarks.append(
                f"A search for {LIMIT} results looks at {self.default_candidates} candidates by default, and this item"
                " is not one of them."
            )
        return remarks


def _title(name: str) -> str:
    return f"{name} bank" if name in BANKS else name


def _term_in_words(term: Term) -> str:
    if term.bias is None:
        return "no statistics: an average item"
    comparison = "more of a hub" if term.change < 0 else "less of a hub" if term.change > 0 else "average"
    return f"{comparison}: {term.weight:.2f} x (mean {term.mean:.4f} - bias {term.bias:.4f})"
