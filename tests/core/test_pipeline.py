"""Reading ahead and writing behind change the time things take, and nothing else."""

import threading
import time

import pytest

from dbnorm_vdb.pipeline import Pace, WriteBehind, read_ahead, side_by_side

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
