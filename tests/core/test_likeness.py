"""How far queries are from the query bank: the distance, and how often it is taken for more than chance."""

from __future__ import annotations

import numpy as np
import pytest

from dbnorm_vdb import Metric
from dbnorm_vdb.likeness import MOST_BANK_VECTORS, MOST_QUERIES, bank_distance


def mean_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.linalg.norm(first[:, None, :] - second[None, :, :], axis=2)


def test_it_is_the_energy_coefficient() -> None:
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(40, 3)), rng.normal(0.5, size=(25, 3))
    found = bank_distance(bank.astype(np.float32), queries.astype(np.float32), Metric.EUCLIDEAN)
    cross = mean_distance(queries, bank).mean()
    within = [mean_distance(one, one).sum() / (len(one) * (len(one) - 1)) for one in (queries, bank)]
    assert found is not None
    assert found.distance == pytest.approx((2 * cross - sum(within)) / (2 * cross), rel=1e-5)
    assert (found.query_count, found.bank_count) == (25, 40)


def test_for_cosine_the_lengths_do_not_count() -> None:
    rng = np.random.default_rng(1)
    bank, queries = (rng.normal(size=(size, 4)).astype(np.float32) for size in (50, 20))
    assert bank_distance(bank, queries, Metric.COSINE) == bank_distance(bank, 8 * queries, Metric.COSINE)
    assert bank_distance(bank, queries, Metric.DOT) != bank_distance(bank, 8 * queries, Metric.DOT)


def test_queries_of_the_banks_own_kind_are_rarely_taken_for_others() -> None:
    rng = np.random.default_rng(2)
    draws = [rng.normal(size=(60, 4)).astype(np.float32) for _ in range(150)]
    found = [bank_distance(draw[20:], draw[:20], Metric.DOT) for draw in draws]
    assert sum(one.unlike for one in found if one is not None) <= 6, "1 % of them, which are 1.5"
    assert abs(np.mean([one.distance for one in found if one is not None])) < 0.005, "no bias, however few they are"


def test_queries_of_another_kind_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    bank = rng.normal(size=(2000, 8)).astype(np.float32)
    found = bank_distance(bank, (rng.normal(size=(500, 8)) + 0.7).astype(np.float32), Metric.DOT)
    assert found is not None
    assert found.unlike
    assert found.distance > found.chance
    assert (found.query_count, found.bank_count) == (MOST_QUERIES, MOST_BANK_VECTORS), "samples of bounded size"


def test_a_few_vectors_say_nothing() -> None:
    bank = np.eye(12, dtype=np.float32)
    assert bank_distance(bank, bank[:9], Metric.DOT) is None
    assert bank_distance(bank[:9], bank, Metric.DOT) is None
    assert bank_distance(bank, bank[:10], Metric.DOT) is not None


def test_vectors_that_are_all_the_same_are_no_distance_apart() -> None:
    same = np.ones((20, 3), dtype=np.float32)
    found = bank_distance(same, same, Metric.EUCLIDEAN)
    assert found is not None
    assert (found.distance, found.unlike) == (0.0, False)
