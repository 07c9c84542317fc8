"""Reading ahead and writing behind change the time things take, and nothing else."""

import sys
import threading
import time

import pytest

from dbnorm_vdb import pipeline
from dbnorm_vdb.pipeline import Pace, WriteBehind, read_ahead, side_by_side, worked_ahead

BOTH = pytest.mark.parametrize("threaded", [False, True], ids=["in turn", "threaded"])


class FailureError(Exception):
    pass


class Pages:
    """Numbers, which note what becomes of them."""

    def __init__(self, count, fails_at=None):
        self.read = []
        self.closed = False
        self.threads = set()
        self._generator = self._numbers(count, fails_at)

    def _numbers(self, count, fails_at):
        try:
            for number in range(count):
                self.threads.add(threading.current_thread().name)
                if number == fails_at:
                    raise FailureError
                self.read.append(number)
                yield number
        finally:
            self.closed = True

    def __iter__(self):
        return self._generator


@BOTH
@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_pages_come_as_they_are(threaded, count):
    pages = Pages(count)
    assert list(read_ahead(iter(pages), threaded=threaded)) == list(range(count))
    assert pages.closed


def test_the_next_page_is_read_while_the_caller_works():
    pages = Pages(5)
    ahead = read_ahead(iter(pages), threaded=True)
    assert next(ahead) == 0
    deadline = time.monotonic() + 10
    while pages.read != [0, 1] and time.monotonic() < deadline:
        time.sleep(0.001)
    assert pages.read == [0, 1], "one page ahead, and no more"
    ahead.close()
    assert pages.closed
    assert threading.current_thread().name not in pages.threads


@BOTH
def test_an_error_in_reading_reaches_the_caller(threaded):
    pages = Pages(5, fails_at=2)
    seen = []
    with pytest.raises(FailureError):
        seen.extend(read_ahead(iter(pages), threaded=threaded))
    assert pages.closed


@BOTH
def test_a_caller_that_stops_closes_the_pages(threaded):
    pages = Pages(5)
    ahead = read_ahead(iter(pages), threaded=threaded)
    next(ahead)
    ahead.close()
    assert pages.closed


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_work_is_done_in_the_order_of_the_pages_in_one_other_thread(count):
    threads, order = set(), []

    def work(page):
        threads.add(threading.current_thread().name)
        order.append(page)
        return page * 10

    pages = Pages(count)
    done = [(page, result()) for page, result in worked_ahead(iter(pages), work, threaded=False)]
    assert done == [(page, page * 10) for page in range(count)]
    assert order == list(range(count))
    assert pages.threads <= {threading.current_thread().name}, "pages are read where the caller is"
    assert threading.current_thread().name not in threads
    assert len(threads) == min(count, 1)


def test_some_pages_are_worked_on_ahead_while_the_caller_is_busy():
    pages, finished = Pages(9), threading.Semaphore(0)

    def work(page):
        finished.release()
        return page

    ahead = worked_ahead(iter(pages), work, threaded=False)
    assert next(ahead)[0] == 0
    for _ in range(3):
        assert finished.acquire(timeout=10)
    assert pages.read == [0, 1, 2], "two ahead, and no more"
    assert [page for page, _ in ahead] == list(range(1, 9))


def test_where_others_read_and_write_the_work_is_done_when_it_is_asked_for():
    worked = []
    ahead = worked_ahead(
        iter(Pages(3)), lambda page: worked.append((page, threading.current_thread().name)), threaded=True
    )
    _, first = next(ahead)
    assert worked == []
    first()
    for _, result in ahead:
        result()
    assert worked == [(page, threading.current_thread().name) for page in range(3)]


@BOTH
def test_an_error_in_the_work_is_raised_where_the_result_is_asked_for(threaded):
    def work(page):
        if page == 2:
            raise FailureError
        return page

    results = [result for _, result in worked_ahead(iter(Pages(4)), work, threaded=threaded)]
    assert [result() for result in results[:2]] == [0, 1]
    with pytest.raises(FailureError):
        results[2]()


def test_no_work_is_begun_once_the_caller_stops_or_reading_fails():
    begun, release = [], threading.Event()

    def work(page):
        begun.append(page)
        release.wait(10)

    ahead = worked_ahead(iter(Pages(9)), work, threaded=False)
    next(ahead)
    threading.Timer(0.05, release.set).start()
    ahead.close()
    assert begun == [0]
    with pytest.raises(FailureError):
        list(worked_ahead(iter(Pages(9, fails_at=2)), lambda page: page, threaded=False))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dbnorm-compute")]


def test_threads_take_shorter_turns_while_there_is_work_and_as_before_afterwards():
    before = sys.getswitchinterval()
    first, second = (worked_ahead(iter(Pages(4)), int, threaded=False) for _ in range(2))
    next(first), next(second)
    assert sys.getswitchinterval() == pytest.approx(0.0001, abs=1e-6)
    first.close()
    assert sys.getswitchinterval() == pytest.approx(0.0001, abs=1e-6), "the second is still at work"
    second.close()
    assert sys.getswitchinterval() == pytest.approx(before)
    try:
        with pipeline._TURNS.short():
            sys.setswitchinterval(0.002)
        assert sys.getswitchinterval() == pytest.approx(0.002), "somebody else has set it: it stays"
        sys.setswitchinterval(0.00005)
        with pipeline._TURNS.short():
            assert sys.getswitchinterval() == pytest.approx(0.00005, abs=1e-6), "shorter already"
    finally:
        sys.setswitchinterval(before)


@BOTH
def test_writes_happen_in_their_order(threaded):
    written = []
    with WriteBehind(threaded=threaded) as writer:
        for number in range(20):
            writer.submit(written.append, number)
        writer.wait()
        assert written == list(range(20))


def test_a_write_does_not_hold_up_the_caller():
    release, written = threading.Event(), []

    def write():
        release.wait(10)
        written.append(1)

    with WriteBehind(threaded=True) as writer:
        writer.submit(write)
        assert written == []
        release.set()
        writer.wait()
        assert written == [1]


@BOTH
def test_an_error_in_writing_reaches_the_caller_before_the_next_write(threaded):
    written = []

    def fail():
        raise FailureError

    def write():
        with WriteBehind(threaded=threaded) as writer:
            writer.submit(fail)
            writer.submit(written.append, 1)

    with pytest.raises(FailureError):
        write()
    assert written == []


def test_what_waits_behind_a_failed_write_is_not_written():
    release, written = threading.Event(), []

    def fail():
        release.wait(10)
        raise FailureError

    def write():
        with WriteBehind(threaded=True) as writer:
            writer.submit(fail)
            writer.submit(written.append, 1)
            writer.submit(written.append, 2)
            release.set()

    with pytest.raises(FailureError):
        write()
    assert written == []


def test_what_waits_is_not_written_when_the_caller_fails():
    release, written = threading.Event(), []

    def write():
        with WriteBehind(threaded=True) as writer:
            writer.submit(release.wait, 10)
            writer.submit(written.append, 1)
            threading.Timer(0.05, release.set).start()
            raise FailureError

    with pytest.raises(FailureError):
        write()
    assert written == []


def test_only_a_few_writes_wait():
    release, submitted = threading.Event(), []

    def write():
        with WriteBehind(threaded=True) as writer:
            for number in range(20):
                writer.submit(release.wait, 10)
                submitted.append(number)

    caller = threading.Thread(target=write)
    caller.start()
    caller.join(0.3)
    assert caller.is_alive()
    assert len(submitted) < 8
    release.set()
    caller.join(10)
    assert len(submitted) == 20


@BOTH
def test_both_are_asked_and_an_error_of_either_is_raised(threaded):
    def fail():
        raise FailureError

    assert side_by_side(lambda: 1, lambda: 2, threaded=threaded) == (1, 2)
    for calls in ((fail, int), (int, fail)):
        with pytest.raises(FailureError):
            side_by_side(*calls, threaded=threaded)


def test_a_pace_is_an_average(monkeypatch):
    now, slept = [100.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("dbnorm_vdb.pipeline.time.monotonic", lambda: now[0])
    monkeypatch.setattr("dbnorm_vdb.pipeline.time.sleep", sleep)
    pace = Pace(50.0)
    for _ in range(4):
        now[0] += 0.5  # the work itself
        pace.wait(100)
    assert now[0] == pytest.approx(108.0)
    Pace(None).wait(10**9)
    assert sum(slept) == pytest.approx(6.0)
