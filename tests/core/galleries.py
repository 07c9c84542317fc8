"""Whole galleries and their statistics, small and adversarial, for the tests of re-ranking."""

from datetime import datetime, timezone

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracle import LARGEST_BETA, activation_set, bias

from dbnorm_vdb import BankStatistics, BiasSummary, CollectionStatistics, ItemStatistics, Metric


def bank_statistics(biases, beta, activation_size=0):
    return BankStatistics(
        beta=beta,
        size=10,
        fingerprint="f",
        bias=BiasSummary(mean=float(biases.mean()), min=float(biases.min()), max=float(biases.max())),
        activation_k=1,
        activation_size=activation_size,
    )


def collection_statistics(query=None, gallery=None, method="dual_is", item_count=1):
    return CollectionStatistics(
        generation=1,
        method=method,
        vector="",
        dimension=8,
        metric=Metric.COSINE,
        query=query,
        gallery=gallery,
        item_count=item_count,
        fitted_at=datetime(2024, 1, 1, tzinfo=timezone.utc),
    )


def fitted(query_bank, gallery_bank, query_beta=20.0, gallery_beta=10.0, activation_k=1):
    """The statistics of a whole gallery, computed by the oracle: per collection and per item."""
    biases = bias(query_bank, query_beta), bias(gallery_bank, gallery_beta)
    members = activation_set(query_bank, activation_k), activation_set(gallery_bank, activation_k)
    n = query_bank.shape[1]
    items = ItemStatistics(
        *biases, *(np.array([item in member for item in range(n)], dtype=bool) for member in members)
    )
    statistics = collection_statistics(
        bank_statistics(biases[0], query_beta, len(members[0])),
        bank_statistics(biases[1], gallery_beta, len(members[1])),
        item_count=n,
    )
    total = query_beta + gallery_beta
    dual = (query_beta * biases[0] + gallery_beta * biases[1]) / total
    lowest = float(dual.min() - (query_beta * biases[0].mean() + gallery_beta * biases[1].mean()) / total)
    return statistics.model_copy(update={"lowest_dual_adjustment": lowest}), items


def take(items, positions):
    """The rows of `items` at `positions`."""
    columns = (items.query_bias, items.gallery_bias, items.query_activated, items.gallery_activated)
    return ItemStatistics(*(column[positions] for column in columns))


def items_with(query_bias, gallery_bias=None, activated=False):
    query_bias = np.array(query_bias, dtype=np.float64)
    flags = np.full(len(query_bias), activated)
    gallery = np.full(len(query_bias), np.nan) if gallery_bias is None else np.array(gallery_bias, dtype=np.float64)
    return ItemStatistics(query_bias, gallery, flags, flags.copy())


def engine_order(similarities):
    """Positions by descending raw similarity, as an engine returns them."""
    return np.argsort(-similarities, kind="stable")


@st.composite
def galleries(draw):
    n = draw(st.integers(1, 7), label="items")
    values = st.sampled_from([-1.0, 0.0, 0.2, 1.0]) | st.floats(-1, 1, allow_subnormal=False)
    columns = draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n), label="which items are copies")
    similarities, query_bank, gallery_bank = (
        draw(arrays(np.float64, (rows, n), elements=values, fill=values))[:, columns]
        for rows in (1, draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    )
    betas = st.sampled_from([0.01, 20.0, LARGEST_BETA]) | st.floats(0.01, LARGEST_BETA)
    parameters = {
        "query_beta": draw(betas, label="query_beta"),
        "gallery_beta": draw(betas, label="gallery_beta"),
        "activation_k": draw(st.integers(1, 2), label="activation_k"),
    }
    return similarities, {"query_bank": query_bank, "gallery_bank": gallery_bank, **parameters}
