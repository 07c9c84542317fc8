"""Which statistics of items are held in memory, and how often the database is asked for them."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from core.galleries import bank_statistics, collection_statistics
from core.test_lookup import numbered

from dbnorm_vdb import InvalidParameterError, StatisticsTimeoutError
from dbnorm_vdb.caching import ItemCache, check_cache
from dbnorm_vdb.deadline import NO_DEADLINE, Deadline
from dbnorm_vdb.lookup import StatisticsLookup, bytes_per_item
from dbnorm_vdb.steps import run

N = 1000
PLENTY = 10**7


class Database:
    """Items 0 to n - 1; the statistics of item i are those numbered i + `shift`."""

    collection = "numbers"

    def __init__(self, n=N):
        self.n = n
        self.shift = 0
        self.asked = []
        self.read_all = 0
        self.answers = threading.Event()
        self.answers.set()

    def items(self, generation, ids, columns, *, timeout=None):
        self.asked.append(list(ids))
        there = [item for item in ids if item < self.n]
        return there, numbered(item + self.shift for item in there)

    def all_items(self, generation, columns):
        self.read_all += 1
        assert self.answers.wait(30)
        page = list(range(self.n)), numbered(range(self.shift, self.n + self.shift))
        return StatisticsLookup([page], columns)


def statistics(generation=2, revision=0, item_count=N):
    bank = bank_statistics(np.array([-1.0, 1.0]), 1.0)
    made = collection_statistics(bank, bank, item_count=item_count)
    return made.model_copy(update={"generation": generation, "revision": revision})


def find(cache, ids, of=None, deadline=NO_DEADLINE):
    return run(cache.find(of or statistics(), ids, deadline), None)


def assert_found(items, sources):
    """The rows are those with these numbers; None: the item has no statistics."""
    expected = [np.nan if source is None else source / 8 for source in sources]
    np.testing.assert_array_equal(items.query_bias, expected)
    flags = [source is not None and source % 3 == 0 for source in sources]
    assert items.gallery_activated.tolist() == flags


@pytest.mark.parametrize("mode", ["all", "lazy", "none"])
@pytest.mark.parametrize("max_bytes", [0, 200, 10_000, PLENTY])
def test_whatever_is_held_the_answer_is_that_of_the_database(mode, max_bytes):
    cache, rng = ItemCache(Database(), mode, max_bytes), np.random.default_rng(3)
    for _ in range(30):
        ids = rng.integers(0, N + 50, size=40).tolist()
        assert_found(find(cache, ids), [item if item < N else None for item in ids])
        assert cache.info().nbytes <= max_bytes


def test_all_is_read_once_and_then_the_database_is_not_asked():
    database = Database()
    cache = ItemCache(database, "all", PLENTY)
    for _ in range(3):
        find(cache, [5, 999, 5])
    assert (database.read_all, database.asked) == (1, [])
    info = cache.info()
    assert (info.mode, info.items, info.hits, info.misses) == ("all", N, 9, 0)


def test_lazy_asks_for_what_it_does_not_hold_in_one_look_up_and_each_once():
    database = Database()
    cache = ItemCache(database, "lazy", PLENTY)
    find(cache, [5, 7, 5])
    find(cache, [7, 9, 5, 11])
    find(cache, [9, 11])
    assert (database.read_all, database.asked) == (0, [[5, 7], [9, 11]])
    info = cache.info()
    assert (info.mode, info.items, info.hits, info.misses) == ("lazy", 4, 4, 5)


def test_none_asks_at_every_search():
    database = Database()
    cache = ItemCache(database, "none", PLENTY)
    for _ in range(2):
        assert_found(find(cache, [5, N, 5]), [5, None, 5])
    assert (database.read_all, database.asked) == (0, [[5, N], [5, N]])
    assert (cache.info().mode, cache.info().nbytes, cache.in_use) == ("none", 0, False)


def test_beyond_the_bound_all_becomes_lazy():
    database = Database()
    room = bytes_per_item(2) * N
    cache = ItemCache(database, "all", room - 1)
    find(cache, list(range(N)))
    assert (cache.info().mode, database.read_all) == ("lazy", 0)
    assert 0 < cache.info().items < N
    assert cache.info().nbytes < room
    find(ItemCache(database, "all", room), [1])
    assert database.read_all == 1


@pytest.mark.parametrize("mode", ["all", "lazy"])
def test_an_unknown_item_is_asked_for_again_when_the_statistics_have_been_read_anew(mode):
    database = Database()
    cache = ItemCache(database, mode, PLENTY)
    for _ in range(3):
        assert_found(find(cache, [N]), [None])
    database.n += 1
    assert_found(find(cache, [N]), [None])
    assert database.asked == [[N]]
    cache.seen(statistics())
    for _ in range(3):
        assert_found(find(cache, [N]), [N])
    assert database.asked == [[N], [N]]


@pytest.mark.parametrize("mode", ["all", "lazy"])
def test_what_is_written_is_taken_in(mode):
    database = Database()
    cache = ItemCache(database, mode, PLENTY)
    find(cache, [1, 2, N])
    cache.put(statistics(), [2, N, N + 1], numbered([20, 21, 22]))
    database.asked.clear()
    assert_found(find(cache, [1, 2, N, N + 1]), [1, 20, 21, 22])
    cache.put(statistics(generation=4), [1], numbered([30]))  # of a fit that this process has not seen yet
    assert_found(find(cache, [1]), [1])
    assert database.asked == []


@pytest.mark.parametrize("mode", ["all", "lazy"])
@pytest.mark.parametrize("revision", [0, 1])
def test_what_is_written_while_the_database_is_read_is_not_overwritten_by_what_that_found(mode, revision):
    database = Database()
    cache = ItemCache(database, mode, PLENTY)
    name = "all_items" if mode == "all" else "items"
    read = getattr(database, name)

    def read_and_be_overtaken(*args, **kwargs):
        found = read(*args, **kwargs)
        cache.put(statistics(revision=revision), [5, N], numbered([20, 21]))
        cache.put(statistics(generation=4), [6], numbered([22]))
        return found

    setattr(database, name, read_and_be_overtaken)
    find(cache, [5, 6])
    setattr(database, name, read)
    assert_found(find(cache, [5, 6, N]), [20, 6, 21])
    assert cache._readers == []


def test_more_items_than_were_counted_do_not_take_more_memory():
    """The count is that of the last refresh."""
    database = Database()
    room = 10_000
    cache = ItemCache(database, "all", room)
    assert_found(find(cache, [1, 2], statistics(item_count=100)), [1, 2])
    assert cache.info().mode == "lazy"
    assert cache.info().nbytes <= room
    find(cache, [3], statistics(item_count=100))
    assert database.read_all == 1


def test_where_everything_cannot_be_read_what_is_needed_is_looked_up(caplog):
    database, times = Database(), []

    def fail(*args):
        times.append(args)
        raise OSError("too much at once")

    database.all_items = fail
    cache = ItemCache(database, "all", PLENTY)
    for _ in range(3):
        assert_found(find(cache, [1, 2]), [1, 2])
    assert len(times) == 1
    assert [("OSError: too much at once" in record.getMessage()) for record in caplog.records] == [True]


def test_a_search_that_waited_while_a_newer_generation_was_read_does_not_get_that():
    database = Database()
    cache = ItemCache(database, "all", PLENTY)
    assert cache._load(statistics(generation=4)) is not None
    assert cache._load(statistics(generation=2)) is None


def test_what_is_remembered_of_unknown_items_is_bounded_too():
    database = Database(n=0)
    tracemalloc.start()
    cache = ItemCache(database, "lazy", 200_000)
    for start in range(0, 50_000, 1000):
        find(cache, range(start, start + 1000))
        database.asked.clear()
    assert tracemalloc.get_traced_memory()[0] < 400_000
    tracemalloc.stop()


@pytest.mark.parametrize("mode", ["all", "lazy"])
@pytest.mark.parametrize("newer", [{"generation": 3}, {"revision": 1}])
def test_one_generation_at_a_time(mode, newer):
    database = Database()
    cache = ItemCache(database, mode, PLENTY)
    assert_found(find(cache, [1, 2]), [1, 2])
    database.shift = 100
    assert_found(find(cache, [1, 2]), [1, 2])
    assert_found(find(cache, [1, 2], statistics(**newer)), [101, 102])
    taken = cache.info()
    database.shift = 50  # a search that began before: it asks, and nothing is thrown away for it
    assert_found(find(cache, [1, 2]), [51, 52])
    assert_found(find(cache, [1, 2], statistics(**newer)), [101, 102])
    assert cache.info().items == taken.items


def test_dropped_statistics_are_let_go():
    cache = ItemCache(Database(), "all", PLENTY)
    find(cache, [1])
    cache.seen(None)
    assert (cache.info().items, cache.info().nbytes) == (0, 0)


def test_while_everything_is_read_others_look_up_what_they_need():
    database = Database()
    database.answers.clear()
    cache = ItemCache(database, "all", PLENTY)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(find, cache, [1])
        while not database.read_all:
            pass
        assert_found(find(cache, [2, 3]), [2, 3])
        assert database.asked == [[2, 3]]
        database.answers.set()
        assert_found(first.result(30), [1])
    assert database.read_all == 1
    assert cache.info().mode == "all"


def test_a_search_does_not_wait_for_everything_longer_than_it_has_time():
    database = Database()
    database.answers.clear()
    cache = ItemCache(database, "all", PLENTY)
    assert_found(find(cache, [2, 3], deadline=Deadline.after(0.2)), [2, 3])
    assert database.asked == [[2, 3]]
    database.answers.set()
    while cache.info().items < N:  # it was left to itself, and comes to an end
        pass
    find(cache, [4])
    assert (database.read_all, database.asked) == (1, [[2, 3]])


def test_what_comes_too_late_is_an_error():
    database, waiting = Database(), threading.Event()
    database.items = lambda *_, timeout: waiting.wait(30)
    with pytest.raises(StatisticsTimeoutError, match=r"its timeout of 0\.05 s"):
        find(ItemCache(database, "lazy", PLENTY), [1], deadline=Deadline.after(0.05))
    waiting.set()


@pytest.mark.parametrize("mode", ["all", "lazy"])
def test_many_threads_at_once(mode):
    """With too little room for all, so that they throw out each other's items."""
    database = Database()
    room = PLENTY if mode == "all" else 3000
    cache = ItemCache(database, mode, room)

    def search(seed):
        rng = np.random.default_rng(seed)
        for turn in range(60):
            ids = rng.integers(0, N + 5, size=30).tolist()
            assert_found(find(cache, ids), [item if item < N else None for item in ids])
            if turn % 20 == 0:
                cache.seen(statistics())
                known = [item for item in ids if item < N]
                cache.put(statistics(), known, numbered(known))
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(search, range(8)))
    assert database.read_all == (mode == "all")


def test_bad_settings():
    with pytest.raises(InvalidParameterError, match="cache must be 'all', 'lazy' or 'none', got 'some'"):
        check_cache("some", 1)
    with pytest.raises(InvalidParameterError, match="cache_bytes .* got -1"):
        check_cache("all", -1)


def test_a_look_up_tells_the_client_how_long_it_may_take():
    told = []

    class Slow(Database):
        def items(self, generation, ids, columns, *, timeout=None):
            told.append(timeout)
            return super().items(generation, ids, columns)

    find(ItemCache(Slow(), "none", PLENTY), [1])
    find(ItemCache(Slow(), "none", PLENTY), [1], deadline=Deadline.after(20))
    assert told[0] is None
    assert 15 < told[1] <= 20


def test_a_client_that_gives_up_when_the_time_is_over_is_late_and_has_not_failed():
    class GivesUp(Database):
        def items(self, generation, ids, columns, *, timeout=None):
            raise OSError("deadline exceeded")

    with pytest.raises(StatisticsTimeoutError):
        find(ItemCache(GivesUp(), "none", PLENTY), [1], deadline=Deadline.after(0.05))
    with pytest.raises(OSError, match="exceeded"):
        find(ItemCache(GivesUp(), "none", PLENTY), [1], deadline=Deadline.after(20))
