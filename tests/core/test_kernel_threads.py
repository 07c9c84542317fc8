"""The numpy kernel in threads: the same results as without, and the BLAS library left as it was."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from dbnorm_vdb.kernels import make_kernel, threads
from dbnorm_vdb.kernels.threads import Processors


class Library:
    """Stands in for the BLAS libraries: so many threads, and what was asked of them."""

    def __init__(self, *counts, api="openblas", layer="pthreads"):
        self.counts, self.api, self.layer = list(counts), api, layer

    def info(self):
        return [{"num_threads": n, "internal_api": self.api, "threading_layer": self.layer} for n in self.counts]

    def limit(self, limits):
        before, self.counts = self.counts, [limits] * len(self.counts)
        outer = self

        class Limited:
            def restore_original_limits(self):
                outer.counts = before

        return Limited()


@pytest.fixture
def four(monkeypatch):
    """Four processors, whatever this machine has."""
    processors = Processors()
    processors._controller = Library(4)
    monkeypatch.setattr("dbnorm_vdb.kernels.numpy_kernel.PROCESSORS", processors)
    return processors


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def whole_numbers(seed, n, dimension=4, largest=2):
    """Vectors whose inner products are exact in float32, and often equal."""
    return np.random.default_rng(seed).integers(-largest, largest + 1, size=(n, dimension)).astype(np.float32)


@pytest.mark.parametrize("n", [127, 128, 129, 700, 5000])
@pytest.mark.parametrize("settings", [{}, {"nearest_k": 1}, {"nearest_k": 3}, {"largest_k": 5}], ids=str)
def test_threads_compute_what_one_computes(four, n, settings):
    bank, items = whole_numbers(1, 2100), whole_numbers(2, n)
    alone = make_kernel(bank, [0.5, 0.3], backend="numpy", **settings)
    four._controller.counts = [1]
    expected = np.concatenate([alone.scan(items), alone.scan(items)], axis=1)
    four._controller.counts = [4]
    together = make_kernel(bank, [0.5, 0.3], backend="numpy", **settings)
    result = np.concatenate([together.scan(items), together.scan(items)], axis=1)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert together.scanned == alone.scanned == 2 * n
    if together.nearest is not None:
        np.testing.assert_array_equal(together.nearest.position, alone.nearest.position)
        np.testing.assert_array_equal(together.nearest.similarity, alone.nearest.similarity)


def test_votes_are_those_of_one_thread(four):
    bank, items, weights = whole_numbers(1, 300), whole_numbers(2, 1000), np.linspace(-1, 1, 300)
    result = make_kernel(bank, [0.5], backend="numpy").log_votes(items, weights)
    four._controller.counts = [1]
    np.testing.assert_allclose(
        result, make_kernel(bank, [0.5], backend="numpy").log_votes(items, weights), rtol=1e-6, atol=1e-6
    )


def test_blocks_are_computed_in_several_threads(four):
    kernel = make_kernel(whole_numbers(1, 50), [1.0], backend="numpy")
    seen = set()
    scan_block = kernel._scan_block

    def watched(*arguments, **options):
        seen.add(threading.current_thread().name)
        return scan_block(*arguments, **options)

    kernel._scan_block = watched
    kernel.scan(whole_numbers(2, 4000))
    assert all(name.startswith("dbnorm-kernel") for name in seen)
    assert four._controller.counts == [4]
    assert not [one for one in threading.enumerate() if one.name.startswith("dbnorm-kernel")]


def test_few_items_leave_the_library_to_itself(four):
    kernel = make_kernel(whole_numbers(1, 50), [1.0], backend="numpy")
    four._controller.limit = None  # not to be called
    kernel.scan(whole_numbers(2, 100))


def test_an_error_in_a_block_is_raised_and_the_library_restored(four):
    kernel = make_kernel(whole_numbers(1, 50), [1.0], backend="numpy")

    def fail(*_, **__):
        raise MemoryError

    kernel._scan_block = fail
    with pytest.raises(MemoryError):
        kernel.scan(whole_numbers(2, 1000))
    assert four._controller.counts == [4]


def test_the_last_one_gives_back():
    processors = Processors()
    library = processors._controller = Library(4, 2)
    with processors.taken_over() as (count, pool):
        assert (count, library.counts) == (4, [1, 1])
        with processors.taken_over() as inner:
            assert inner == (4, pool)
        assert library.counts == [1, 1]
        assert pool.submit(int).result() == 0
    assert library.counts == [4, 2]


def test_many_take_over_at_once():
    processors = Processors()
    library = processors._controller = Library(4)

    def use(number):
        with processors.taken_over() as (count, pool):
            assert count == 4
            assert library.counts == [1]
            return pool.submit(lambda: number).result()

    with ThreadPoolExecutor(16) as users:
        assert list(users.map(use, range(200))) == list(range(200))
    assert library.counts == [4]


@pytest.mark.parametrize("controller", [False, Library(1), Library()], ids=["none", "one thread", "no library"])
def test_where_there_is_nothing_to_take_over_there_are_no_threads(controller):
    processors = Processors()
    processors._controller = controller
    with processors.taken_over() as taken:
        assert taken == (1, None)


def test_a_limit_that_the_user_sets_is_kept():
    with threadpool_limits(1), threads.PROCESSORS.taken_over() as taken:
        assert taken == (1, None)


def test_numpys_own_library_is_limited_and_given_back():
    before = blas_threads()
    if max(before, default=1) < 2:
        pytest.skip("the BLAS library of this machine has one thread")
    with threads.PROCESSORS.taken_over() as (count, pool):
        if pool is None:
            pytest.skip("the BLAS library of this machine cannot be limited for all threads")
        assert count > 1
        assert 1 in blas_threads()
    assert blas_threads() == before


def test_a_library_that_cannot_be_limited_for_all_threads_is_left_alone(monkeypatch):
    class Controller(Library):
        def select(self, **_):
            return self

        def info(self):
            return [{**one, "filepath": "/lib/libopenblas.so"} for one in super().info()]

    for library, known in (
        (Controller(4), True),
        (Controller(4, api="mkl", layer="intel"), True),
        (Controller(4, layer="openmp"), False),
        (Controller(4, api="blis"), False),
    ):
        monkeypatch.setattr("threadpoolctl.ThreadpoolController", lambda library=library: library)
        assert threads._controller() is (library if known else False)


def test_it_does_without_threadpoolctl(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "threadpoolctl", None)
    assert threads._controller() is False
