"""Steps that have to end in time, in a thread and on an event loop."""

import asyncio
import contextvars
import math
import threading
import time

import pytest

from dbnorm_vdb import StatisticsTimeoutError, deadline
from dbnorm_vdb.deadline import NO_DEADLINE, Deadline
from dbnorm_vdb.eventloop import run_async
from dbnorm_vdb.steps import Call, run, within, work

VARIABLE = contextvars.ContextVar("variable", default="unset")


class Client:
    """An async client that answers when it is told to."""

    def __init__(self):
        self.may_answer = asyncio.Event()
        self.calls = self.answers = self.cancelled = 0

    async def search(self):
        self.calls += 1
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.answers += 1
        return "found"


def searching():
    return (yield Call("search"))


def test_without_a_deadline_steps_are_taken_as_they_are():
    thread = run(within(NO_DEADLINE, work(threading.current_thread)), None)
    assert thread is threading.current_thread()


def test_in_time_the_result_and_the_error_are_those_of_the_steps():
    VARIABLE.set("set by the caller")
    assert run(within(Deadline.after(60), work(VARIABLE.get)), None) == "set by the caller"
    with pytest.raises(TimeoutError, match="of the client") as caught:
        run(within(Deadline.after(60), work(lambda: (_ for _ in ()).throw(TimeoutError("of the client")))), None)
    assert not isinstance(caught.value, StatisticsTimeoutError)


def test_work_that_is_late_goes_on_alone():
    may_end, ended = threading.Event(), threading.Event()

    def slow():
        may_end.wait(30)
        ended.set()

    with pytest.raises(StatisticsTimeoutError, match=r"its timeout of 0\.05 s"):
        run(within(Deadline.after(0.05), work(slow)), None)
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(30)


def test_what_is_late_already_is_not_begun():
    begun = []
    with pytest.raises(StatisticsTimeoutError):
        run(within(Deadline(at=time.monotonic() - 1, timeout=1), work(lambda: begun.append(1))), None)

    async def on_a_loop():
        with pytest.raises(StatisticsTimeoutError):
            await run_async(within(Deadline(at=time.monotonic() - 1), work(lambda: begun.append(1))), None)

    asyncio.run(on_a_loop())
    assert begun == []


def test_what_is_late_does_not_become_more_and_more(monkeypatch):
    monkeypatch.setattr(deadline, "_places", threading.Semaphore(2))
    may_end, begun = threading.Event(), []

    def slow():
        begun.append(1)
        may_end.wait(30)

    for _ in range(4):
        with pytest.raises(StatisticsTimeoutError):
            run(within(Deadline.after(0.05), work(slow)), None)
    assert len(begun) == 2
    may_end.set()
    assert run(within(Deadline.after(60), work(lambda: "found")), None) == "found"


def test_on_a_loop_what_is_late_goes_on_alone():
    async def main():
        client = Client()
        with pytest.raises(StatisticsTimeoutError):
            await run_async(within(Deadline.after(0.05), searching()), client)
        assert (client.calls, client.answers, client.cancelled) == (1, 0, 0)
        client.may_answer.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert client.answers == 1
        assert len(asyncio.all_tasks()) == 1
        assert await run_async(within(Deadline.after(60), searching()), client) == "found"

    asyncio.run(main())


def test_on_a_loop_an_error_that_comes_too_late_troubles_nobody(caplog):
    async def fail():
        await asyncio.sleep(0.1)
        raise OSError("nobody is told")

    class Failing:
        def search(self):
            return fail()

    async def main():
        with pytest.raises(StatisticsTimeoutError):
            await run_async(within(Deadline.after(0.01), searching()), Failing())
        await asyncio.sleep(0.3)

    asyncio.run(main())
    assert caplog.records == []


def test_on_a_loop_the_caller_who_is_cancelled_cancels_what_is_under_way():
    async def main():
        client = Client()
        task = asyncio.ensure_future(run_async(within(Deadline.after(60), searching()), client))
        while not client.calls:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.cancelled == 1
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_on_a_loop_work_that_several_share_is_late_for_each_at_its_own_time():
    may_end = threading.Event()

    def shared(timeout):
        return run_async(within(Deadline.after(timeout), work(lambda: may_end.wait(30), key="shared")), None)

    async def main():
        patient = asyncio.ensure_future(shared(60))
        with pytest.raises(StatisticsTimeoutError):
            await shared(0.05)
        may_end.set()
        assert await patient

    asyncio.run(main())


@pytest.mark.parametrize(
    "timeout", [None, 0, -1, True, "5", math.nan, math.inf, 1e300, pytest.param(10**400, id="huge")]
)
def test_what_is_no_time_is_handed_to_the_client_as_it_is(timeout):
    deadline = Deadline.after(timeout)
    assert not deadline.is_set
    assert deadline.client_timeout() is timeout
    assert deadline.halfway() is deadline


def test_the_client_gets_what_is_left():
    deadline = Deadline.after(100)
    assert 99 < deadline.client_timeout() <= 100
    assert deadline.client_timeout(whole_seconds=True) == 100
    assert 49 < deadline.halfway().left() <= 50
    some_time_ago = Deadline(at=time.monotonic() + 2.5, timeout=10)
    assert 2 < some_time_ago.client_timeout() <= 2.5
    assert some_time_ago.client_timeout(whole_seconds=True) == 3
    passed = Deadline(at=time.monotonic() - 1, timeout=1)
    assert (passed.left(), passed.client_timeout(whole_seconds=True)) == (0, 1)
    assert 0 < passed.client_timeout() < 0.01
