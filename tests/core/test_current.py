"""The collection-level statistics in use."""

from types import SimpleNamespace

from core.galleries import bank_statistics, collection_statistics
from numpy import array

from dbnorm_vdb.current import CurrentStatistics
from dbnorm_vdb.fallbacks import Warnings
from dbnorm_vdb.steps import run
from dbnorm_vdb.store import VectorInfo

BANK = bank_statistics(array([-1.0, 1.0]), 1.0)
OLD = collection_statistics(BANK, BANK)
NEW = OLD.model_copy(update={"generation": 2})
STORE = SimpleNamespace(collection="items", describe=lambda fresh: VectorInfo("", OLD.dimension, OLD.metric))


def test_what_was_being_read_does_not_take_the_place_of_what_a_fit_has_put_meanwhile():
    seen = []
    current = CurrentStatistics(
        STORE, SimpleNamespace(active=lambda: fitted_meanwhile()), 60.0, Warnings("x"), seen.append
    )

    def fitted_meanwhile():
        current.put(NEW)
        return OLD

    assert run(current.get(), None) is OLD  # a search that began before
    assert run(current.get(), None) is NEW
    assert seen == [NEW]


def test_what_is_read_is_used_until_its_time_is_over():
    reads = []
    ledger = SimpleNamespace(active=lambda: reads.append(1) or OLD)
    current = CurrentStatistics(STORE, ledger, 60.0, Warnings("x"), lambda statistics: None)
    assert [run(current.get(), None) for _ in range(3)] == [OLD] * 3
    assert len(reads) == 1
    run(current.get(fresh=True), None)
    assert len(reads) == 2
    impatient = CurrentStatistics(STORE, ledger, 0.0, Warnings("x"), lambda statistics: None)
    for _ in range(3):
        run(impatient.get(), None)
    assert len(reads) == 5
