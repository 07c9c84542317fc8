"""The nearest items of each bank vector, kept over a stream of pages, equal those of a full sort."""

import numpy as np
import pytest

from dbnorm_vdb.kernels import make_kernel


@pytest.fixture(params=["numpy", "torch"])
def backend(request):
    if request.param == "torch":
        pytest.importorskip("torch", reason="torch is not installed")
    return request.param


def whole_numbers(seed, n, dimension=3, largest=2):
    """Vectors whose inner products are exact in float32, and often equal."""
    return np.random.default_rng(seed).integers(-largest, largest + 1, size=(n, dimension)).astype(np.float32)


def scan(bank, items, k, pages, backend):
    kernel = make_kernel(bank, [1.0], nearest_k=k, backend=backend)
    for page in np.array_split(items, pages):
        kernel.scan(page)
    assert kernel.scanned == len(items)
    return kernel.nearest


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("pages", [1, 2, 7])
@pytest.mark.parametrize("n", [40, 1300])
def test_nearest_items_are_those_of_a_stable_sort(backend, k, pages, n):
    bank, items = whole_numbers(1, 30), whole_numbers(2, n)
    nearest = scan(bank, items, k, pages, backend)
    similarities = bank @ items.T
    expected = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(nearest.position, expected)
    np.testing.assert_array_equal(nearest.similarity, np.take_along_axis(similarities, expected, axis=1))


def test_a_bank_of_several_blocks_is_searched_whole(backend):
    bank, items = whole_numbers(3, 2100, largest=9), whole_numbers(4, 600, largest=9)
    nearest = scan(bank, items, 2, 3, backend)
    expected = np.argsort(-(bank @ items.T), axis=1, kind="stable")[:, :2]
    np.testing.assert_array_equal(nearest.position, expected)


@pytest.mark.parametrize("k", [1, 3])
def test_of_equal_items_the_earlier_ones_stay(backend, k):
    bank, items = np.ones((2, 2), dtype=np.float32), np.ones((1200, 2), dtype=np.float32)
    assert scan(bank, items, k, 5, backend).position.tolist() == [list(range(k))] * 2


@pytest.mark.parametrize("k", [1, 3])
def test_a_later_item_that_is_nearer_takes_the_place(backend, k):
    bank = np.array([[1.0, 0.0]], dtype=np.float32)
    items = np.arange(1, 1201, dtype=np.float32)[:, None] * np.array([[1.0, 0.0]], dtype=np.float32)
    assert scan(bank, items, k, 6, backend).position.tolist() == [[1199, 1198, 1197][:k]]


def test_places_without_an_item_say_so(backend):
    bank, items = np.eye(2, dtype=np.float32), np.array([[3.0, 1.0], [2.0, -1.0]], dtype=np.float32)
    nearest = scan(bank, items, 4, 2, backend)
    assert nearest.position.tolist() == [[0, 1, -1, -1], [0, 1, -1, -1]]
    assert nearest.similarity.tolist() == [[3.0, 2.0, -np.inf, -np.inf], [1.0, -1.0, -np.inf, -np.inf]]


def test_log_weights_do_not_change_which_items_are_nearest(backend):
    bank, items = whole_numbers(5, 30), whole_numbers(6, 50)
    weights = np.linspace(-40, 40, 30, dtype=np.float32)
    kernel = make_kernel(bank, [20.0], log_weights=weights, nearest_k=2, backend=backend)
    kernel.scan(items)
    expected = np.argsort(-(bank @ items.T), axis=1, kind="stable")[:, :2]
    np.testing.assert_array_equal(kernel.nearest.position, expected)


def test_nothing_is_kept_unless_asked_for(backend):
    kernel = make_kernel(np.eye(2, dtype=np.float32), [1.0], backend=backend)
    kernel.scan(np.eye(2, dtype=np.float32))
    assert kernel.nearest is None
