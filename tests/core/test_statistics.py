"""The collection-level document survives storage, and whatever else is stored in its place is refused with reasons."""

import copy
import json
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbnorm_vdb import (
    BankStatistics,
    BiasSummary,
    CollectionStatistics,
    ItemStatistics,
    Metric,
    NnnStatistics,
    StatisticsFormatError,
    StoredState,
)
from dbnorm_vdb.statistics import FORMAT_VERSION, MAX_STATE_BYTES, Calibration, FitClaim

BANK = BankStatistics(
    beta=20.0,
    size=5000,
    fingerprint="a" * 64,
    source="captions.npy",
    bias=BiasSummary(mean=0.1, min=-0.25, max=1 / 3, quantiles={"0.5": 0.1, "0.99": 0.3}),
    activation_k=1,
    activation_size=77,
)
STATISTICS = CollectionStatistics(
    generation=3,
    method="dual_is",
    vector="Bild-Größe",
    dimension=256,
    metric=Metric.COSINE,
    query=BANK,
    gallery=BANK.model_copy(update={"beta": 10.0}),
    item_count=1872,
    skipped_count=2,
    lowest_dual_adjustment=-0.31,
    calibration=Calibration(
        limit=10, query_count=50, candidates=80, exact_share=0.99, certified_candidates=200, certified_share=0.9
    ),
    fitted_at=datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=timezone.utc),
    library_version="1.2.3",
)
CLAIM = FitClaim(
    generation=4,
    host="somewhere",
    process=4711,
    token="0123456789abcdef",
    since=datetime(2026, 11, 23, 22, 0, tzinfo=timezone.utc),
    renewed_at=datetime(2026, 11, 23, 22, 5, 1, 250_000, tzinfo=timezone.utc),
)
NNN = NnnStatistics(alpha=0.5, k=10, bias=BANK.bias)
FULL = StoredState(active=STATISTICS, writing=CLAIM)
STATES = {
    "empty": StoredState(),
    "first fit under way": StoredState(writing=CLAIM),
    "one bank": StoredState(active=STATISTICS.model_copy(update={"gallery": None, "lowest_dual_adjustment": None})),
    "nnn": StoredState(active=STATISTICS.model_copy(update={"method": "nnn", "nnn": NNN})),
    "full": FULL,
}


def load(stored):
    return StoredState.load(stored, collection="images")


def document(**changes):
    """The full document as JSON types, with some of its values replaced by dotted path."""
    changed = copy.deepcopy(FULL.dump())
    for path, value in changes.items():
        *parents, name = path.split(".")
        place = changed
        for parent in parents:
            place = place[parent]
        place[name] = value
    return changed


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_what_was_dumped_is_loaded_from_json_types_and_from_text(state):
    assert load(state.dump()) == state
    assert load(json.dumps(state.dump())) == state
    assert load(json.dumps(state.dump(), ensure_ascii=False)) == state


def test_floats_survive_to_the_last_bit():
    bias = load(json.dumps(FULL.dump())).active.query.bias
    assert bias.max == 1 / 3
    assert bias.quantiles == {"0.5": 0.1, "0.99": 0.3}


def test_the_document_holds_nothing_but_json_types_and_names_its_version():
    dumped = FULL.dump()
    assert json.loads(json.dumps(dumped, allow_nan=False)) == dumped
    assert dumped["format_version"] == FORMAT_VERSION == 1


@pytest.mark.parametrize("stored", [None, ""])
def test_nothing_stored_is_no_state(stored):
    assert load(stored) is None


def test_banks_are_those_in_use_by_name():
    assert list(STATISTICS.banks) == ["query", "gallery"]
    assert STATES["one bank"].active.banks == {"query": BANK}


def test_columns_are_the_biases_of_an_item_by_name():
    assert list(load(FULL.dump()).active.columns) == ["query", "gallery"]
    with_nnn = STATES["nnn"].active
    assert list(with_nnn.columns) == ["query", "gallery", "nnn"]
    assert with_nnn.columns["nnn"].bias == NNN.bias


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param("not JSON", id="text"),
        pytest.param("{", id="half a document"),
        pytest.param(json.dumps(FULL.dump())[:-7], id="cut off"),
        pytest.param(b"{}", id="bytes"),
        pytest.param("null", id="null"),
        pytest.param("[1, 2]", id="a list as text"),
        pytest.param([1, 2], id="a list"),
        pytest.param(17, id="a number"),
        pytest.param({}, id="an empty object"),
        pytest.param({"title": "a cat", "year": 2020}, id="the user's own object"),
        pytest.param({"format_version": {1, 2}}, id="not JSON types"),
        pytest.param("\ud800", id="half a surrogate"),
        pytest.param("[" * 50_000, id="nested too deep"),
    ],
)
def test_a_document_that_is_not_ours_is_refused(stored):
    with pytest.raises(StatisticsFormatError, match=r"'images': .*is not statistics of this library .*drop\(\)"):
        load(stored)


@pytest.mark.parametrize("version", [2, 0, -1, "1", None, 1.5, [1], {"major": 1}])
def test_another_format_version_is_refused_before_anything_else_is_read(version):
    for stored in (document(format_version=version), {"format_version": version, "layout": "unknown"}):
        with pytest.raises(
            StatisticsFormatError, match=r"'images': .*format version .*, this library reads 1"
        ) as raised:
            load(stored)
        assert repr(version) in str(raised.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("active", "yes"),
        ("active.generation", 0),
        ("active.generation", None),
        ("active.method", 5),
        ("active.metric", "hamming"),
        ("active.dimension", -1),
        ("active.item_count", "many"),
        ("active.item_count", -1),
        ("active.skipped_count", -1),
        ("active.calibration.candidates", 0),
        ("active.fitted_at", "yesterday"),
        ("active.vector", "v" * 2000),
        ("active.lowest_dual_adjustment", float("nan")),
        ("active.query.beta", 0),
        ("active.query.beta", -20.0),
        ("active.query.beta", float("inf")),
        ("active.query.beta", float("nan")),
        ("active.query.size", 0),
        ("active.query.fingerprint", None),
        ("active.query.activation_k", 0),
        ("active.query.bias", []),
        ("active.query.bias.mean", float("nan")),
        ("active.query.bias.min", float("-inf")),
        ("active.query.bias.max", 10**400),
        ("active.query.bias.quantiles", {"0.5": float("inf")}),
        ("active.query.bias.quantiles", {str(q): 0.0 for q in range(65)}),
        ("active.gallery.bias.mean", "high"),
        ("active.nnn", 0.5),
        ("active.nnn", {"alpha": float("nan"), "k": 10, "bias": BANK.bias.model_dump()}),
        ("active.nnn", {"alpha": 0.5, "k": 0, "bias": BANK.bias.model_dump()}),
        ("writing", 4),
        ("writing", "soon"),
        ("writing.generation", 0),
        ("writing.process", -1),
        ("writing.since", "2026-11-23T22:00:00"),
    ],
)
def test_a_damaged_field_is_named(path, value):
    for stored in (document(**{path: value}), json.dumps(document(**{path: value}))):
        with pytest.raises(StatisticsFormatError, match=rf"'images': .*damaged: {path}") as raised:
            load(stored)
        assert "fit() again" in str(raised.value)


@pytest.mark.parametrize("name", ["generation", "method", "vector", "dimension", "metric", "item_count", "fitted_at"])
def test_a_missing_field_is_named(name):
    stored = document()
    del stored["active"][name]
    with pytest.raises(StatisticsFormatError, match=rf"damaged: active\.{name}: Field required"):
        load(stored)


def test_keys_of_a_later_minor_version_are_passed_over():
    stored = document(**{"later": [1], "active.later": {"a": 1}, "active.query.later": 2, "active.query.bias.later": 3})
    assert load(stored) == FULL


@pytest.mark.parametrize("deep", [False, True])
def test_a_copy_with_other_banks_has_the_columns_of_these(deep):
    assert (list(STATISTICS.banks), list(STATISTICS.columns)) == (["query", "gallery"], ["query", "gallery"])
    other = STATISTICS.model_copy(update={"query": BANK.model_copy(update={"beta": 5.0}), "gallery": None}, deep=deep)
    assert (list(other.banks), list(other.columns)) == (["query"], ["query"])
    assert other.columns["query"].beta == other.banks["query"].beta == 5.0
    assert STATISTICS.columns["query"].beta == 20.0


def test_what_was_read_from_statistics_makes_them_no_different():
    read = STATISTICS.model_copy()
    assert read.columns is read.columns
    assert read == STATISTICS.model_copy()
    assert read.model_dump() == STATISTICS.model_copy().model_dump()
    assert copy.deepcopy(read).columns == read.columns


def padded(size):
    """The full document as text of `size` bytes."""
    text = json.dumps({**document(), "padding": ""})
    return text.replace('"padding": ""', f'"padding": "{"x" * (size - len(text))}"')


def test_a_document_may_fill_64_kilobytes_and_no_more():
    assert load(padded(MAX_STATE_BYTES)) == FULL
    too_large = padded(MAX_STATE_BYTES + 1)
    for stored in (too_large, json.loads(too_large)):
        with pytest.raises(StatisticsFormatError, match="65537 bytes, more than 65536"):
            load(stored)


def test_the_bound_counts_bytes_and_not_characters():
    with pytest.raises(StatisticsFormatError, match="bytes, more than 65536"):
        load(json.dumps({**document(), "padding": "ö" * 40_000}, ensure_ascii=False))


def test_the_largest_document_that_can_be_written_can_be_read_back():
    long = "ö" * 1024
    bias = BiasSummary(mean=-1 / 3, min=-1e-300 / 3, max=1e300 / 3, quantiles={f"0.{q:020}": 1 / 3 for q in range(64)})
    bank = BANK.model_copy(update={"source": long, "fingerprint": long, "bias": bias})
    names = {"vector": long, "library_version": long}
    state = StoredState(active=STATISTICS.model_copy(update={**names, "query": bank, "gallery": bank}), writing=CLAIM)
    assert load(json.dumps(state.dump())) == state


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PATHS = [
    *("format_version", "active", "writing", "active.generation", "active.method", "active.vector", "active.metric"),
    *("active.query", "active.query.beta", "active.query.bias", "active.query.bias.quantiles", "active.fitted_at"),
]


@settings(deadline=None, max_examples=200)
@given(path=st.sampled_from(PATHS), value=JSON)
def test_any_damage_is_either_harmless_or_a_format_error(path, value):
    try:
        state = load(document(**{path: value}))
    except StatisticsFormatError:
        return
    assert load(state.dump()) == state


@settings(deadline=None, max_examples=100)
@given(stored=JSON | st.text())
def test_foreign_data_never_raises_anything_but_a_format_error(stored):
    try:
        state = load(stored)
    except StatisticsFormatError:
        return
    assert state is None or isinstance(state, StoredState)


def test_unknown_items_are_columns_that_may_be_filled_in():
    items = ItemStatistics.unknown(3)
    assert len(items) == 3
    for bank in ("query", "gallery"):
        assert np.isnan(items.bias(bank)).all()
        assert not items.activated(bank).any()
        items.bias(bank)[1] = 0.5
    assert items.query_bias is items.bias("query")
    assert items.gallery_bias[1] == 0.5
    assert np.isnan(items.gallery_bias[0])
