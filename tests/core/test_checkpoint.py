"""A checkpoint holds a fit's whole state, and what is damaged, torn or too old counts as none."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbnorm_vdb import Bank, Metric, checkpoint
from dbnorm_vdb.checkpoint import USABLE_FOR, Checkpoint
from dbnorm_vdb.fitting import FitSettings, GalleryFit
from dbnorm_vdb.methods import Method
from dbnorm_vdb.store import checkpoint_rows, joined_checkpoint

RNG = np.random.default_rng(3)
ITEMS = RNG.normal(size=(400, 6)).astype(np.float32)
BANKS = {"query": Bank.of(RNG.normal(size=(30, 6))), "gallery": Bank.of(RNG.normal(size=(20, 6)))}
WEIGHTS = np.log(np.full(30, 1.0)) + RNG.normal(size=30) / 10


def gallery(metric=Metric.COSINE, method=Method.SINKHORN):
    chosen = FitSettings(method, activation_k=2)
    return GalleryFit(metric=metric, banks=BANKS, settings=chosen, log_weights=WEIGHTS, expected_items=400)


def feed(fit, ids, rows):
    for start in range(0, len(rows), 50):
        page = rows[start : start + 50]
        fit.page([ids[row] for row in page], ITEMS[page])


def outcome(fit):
    statistics = fit.statistics(generation=1, vector="", dimension=6, version="1", sinkhorn=(400, [0.5]))
    ids, items = fit.activated()
    biases = {name: items.bias(name).tolist() for name in statistics.columns}
    return statistics.model_dump(exclude={"fitted_at"}), items.activation_sets(), ids, biases


@pytest.mark.parametrize("ids", [list(range(400)), [f"id {row:03}" for row in range(400)]], ids=["integers", "text"])
@pytest.mark.parametrize("metric", list(Metric), ids=lambda metric: metric.value)
@pytest.mark.parametrize("cut", [50, 200, 400])
@pytest.mark.parametrize("method", [Method.SINKHORN, Method.NNN], ids=lambda method: method.value)
def test_a_fit_restored_from_a_checkpoint_ends_like_one_that_was_not_interrupted(metric, method, cut, ids):
    whole, first, second = (gallery(metric, method) for _ in range(3))
    feed(whole, ids, list(range(400)))
    feed(first, ids, list(range(cut)))
    saved = Checkpoint(3, ids[cut - 1], cut, first.state(), (400, [0.5]))
    loaded = Checkpoint.load(saved.dump())
    assert (loaded.number, loaded.after, loaded.done, loaded.sinkhorn) == (3, ids[cut - 1], cut, (400, [0.5]))
    second.restore(loaded.state)
    feed(second, ids, list(range(cut, 400)))
    assert outcome(second) == outcome(whole)


def test_the_state_of_other_banks_is_refused():
    state = gallery().state()
    other = GalleryFit(
        metric=Metric.COSINE,
        banks={"query": BANKS["gallery"], "gallery": BANKS["query"]},
        settings=FitSettings(Method.DUAL_IS),
        expected_items=400,
    )
    with pytest.raises((ValueError, KeyError)):
        other.restore(state)


@pytest.mark.parametrize("data", [None, b"", b"nonsense", b"PK\x03\x04nonsense"])
def test_what_is_no_checkpoint_is_none(data):
    assert Checkpoint.load(data) is None


def small_checkpoint():
    fit = gallery()
    feed(fit, list(range(400)), list(range(50)))
    return Checkpoint(1, 49, 50, fit.state())


DUMPED = small_checkpoint().dump()


@settings(deadline=None, max_examples=500)
@given(position=st.integers(0, len(DUMPED) - 1), change=st.integers(1, 255))
def test_a_damaged_checkpoint_is_none(position, change):
    assert Checkpoint.load(DUMPED).done == 50
    damaged = bytearray(DUMPED)
    damaged[position] ^= change
    assert Checkpoint.load(bytes(damaged)) is None
    assert Checkpoint.load(DUMPED[:position]) is None


def test_after_a_day_it_is_too_old(monkeypatch):
    dumped = Checkpoint(1, 49, 50, {}).dump()
    assert Checkpoint.load(dumped) is not None

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(timezone.utc) + USABLE_FOR + timedelta(seconds=1)

    monkeypatch.setattr(checkpoint, "datetime", Later)
    assert Checkpoint.load(dumped) is None


# --- rows ---------------------------------------------------------------------------------------------------------


def rows_of(number, data, size=10):
    return dict(checkpoint_rows(number, data, size))


def test_the_latest_whole_checkpoint_is_read():
    stored = {**rows_of(1, b"first checkpoint, long"), **rows_of(2, b"second")}
    assert joined_checkpoint(stored.values()) == b"second"
    stored |= rows_of(3, b"third")  # takes the place of the first, of which parts are left
    assert joined_checkpoint(stored.values()) == b"third"


@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_killed_while_one_is_written_the_one_before_is_read(written):
    stored = {**rows_of(1, b"first checkpoint, long"), **rows_of(2, b"second checkpoint")}
    third = rows_of(3, b"third checkpoint, long also")
    assert len(third) == 4
    stored |= dict(list(third.items())[:written])
    assert joined_checkpoint(stored.values()) == b"second checkpoint"


def test_without_a_whole_one_there_is_none():
    assert joined_checkpoint([]) is None
    assert joined_checkpoint(list(rows_of(1, b"first checkpoint").values())[1:]) is None
    (row,) = rows_of(1, b"x", 100).values()
    assert joined_checkpoint([{**row, "data": "not base64!"}]) is None
