"""A fit over pages of items gives the biases, activation sets and summaries of the formulas on full matrices."""

import numpy as np
import pytest
from oracle import activation_set, bias, mean_of_largest

from dbnorm_vdb import Bank, EmptyCollectionError, Metric
from dbnorm_vdb.fitting import FitSettings, GalleryFit
from dbnorm_vdb.methods import Method

RNG = np.random.default_rng(1)
ITEMS = (RNG.normal(size=(700, 6)) / 2).astype(np.float32)
BANKS = {
    "query": (RNG.normal(size=(60, 6)) / 2 + 0.1).astype(np.float32),
    "gallery": (RNG.normal(size=(45, 6)) / 2).astype(np.float32),
}
IDS = [f"item {row}" for row in range(len(ITEMS))]
METRICS = list(Metric)
SETTINGS = FitSettings(query_beta=20.0, gallery_beta=5.0)


def similarities(bank, items, metric):
    """(m, n) of bank vectors to items, in float64: larger is nearer."""
    bank, items = np.asarray(bank, dtype=np.float64), np.asarray(items, dtype=np.float64)
    if metric is Metric.EUCLIDEAN:
        return -((bank[:, None, :] - items[None, :, :]) ** 2).sum(axis=2)
    if metric is Metric.COSINE:
        lengths = np.linalg.norm(items, axis=1, keepdims=True)
        items = items / np.where(lengths == 0, 1, lengths)
        bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    return bank @ items.T


def fit(items, *, banks=BANKS, metric=Metric.COSINE, page_size=256, settings=SETTINGS, columns=None):
    """Run a fit over pages; returns it, the biases of the usable items, and their ids."""
    gallery = GalleryFit(metric=metric, banks={name: Bank.of(bank) for name, bank in banks.items()}, settings=settings)
    ids = [f"item {row}" for row in range(len(items))]
    kept, biases = [], {name: [np.empty(0)] for name in columns or banks}
    for start in range(0, len(items), page_size):
        page = slice(start, start + page_size)
        usable, values = gallery.page(ids[page], items[page])
        kept += [item for item, use in zip(ids[page], usable, strict=True) if use]
        assert set(values) == set(biases)
        for name in biases:
            biases[name].append(values[name])
    return gallery, {name: np.concatenate(values) for name, values in biases.items()}, kept


def activation_sets(gallery):
    """The ids of each bank's activation set, in the order they came."""
    ids, items = gallery.activated()
    return {name: [ids[row] for row in np.flatnonzero(items.activated(name))] for name in statistics_of(gallery).banks}


def statistics_of(gallery, **changed):
    return gallery.statistics(**{"generation": 7, "vector": "image", "dimension": 6, "version": "1.0", **changed})


@pytest.mark.parametrize("page_size", [1, 97, 512, 700, 5000])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.value)
def test_biases_are_those_of_the_formula_for_every_metric_and_page_size(metric, page_size):
    _, biases, kept = fit(ITEMS, metric=metric, page_size=page_size)
    assert kept == IDS
    for name, bank in BANKS.items():
        expected = bias(similarities(bank, ITEMS, metric), SETTINGS.beta(name))
        np.testing.assert_allclose(biases[name], expected, atol=2e-6)


@pytest.mark.parametrize("k", [1, 7, 1000])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.value)
def test_the_bias_of_nnn_is_beside_the_plain_ones(metric, k):
    settings = FitSettings(Method.NNN, 20.0, 5.0, nnn_alpha=0.7, nnn_k=k)
    gallery, plain, _ = fit(ITEMS, metric=metric)
    gallery, biases, _ = fit(ITEMS, metric=metric, settings=settings, columns=("query", "gallery", "nnn"))
    for name in BANKS:
        np.testing.assert_array_equal(biases[name], plain[name])
    expected = 0.7 * mean_of_largest(similarities(BANKS["query"], ITEMS, metric), k).astype(np.float64)
    np.testing.assert_allclose(biases["nnn"], expected, atol=2e-6)
    stored = statistics_of(gallery)
    assert list(stored.columns) == ["query", "gallery", "nnn"]
    assert (stored.method, stored.nnn.alpha, stored.nnn.k, stored.columns["nnn"].beta) == ("nnn", 0.7, k, 1.0)
    summary = [stored.nnn.bias.mean, stored.nnn.bias.min, stored.nnn.bias.max]
    np.testing.assert_allclose(summary, [expected.mean(), expected.min(), expected.max()], atol=2e-6)
    assert FitSettings.of(stored) == settings


@pytest.mark.parametrize("k", [1, 3, 1000])
@pytest.mark.parametrize("page_size", [64, 700])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.value)
def test_activation_sets_are_the_nearest_items_over_the_whole_gallery(metric, page_size, k):
    gallery, _, _ = fit(ITEMS, metric=metric, page_size=page_size, settings=FitSettings(activation_k=k))
    sets = activation_sets(gallery)
    for name, bank in BANKS.items():
        expected = activation_set(similarities(bank, ITEMS, metric), k)
        assert sets[name] == [IDS[item] for item in sorted(expected)]
        stored = statistics_of(gallery).banks[name]
        assert (stored.activation_size, stored.activation_k) == (len(expected), k)


@pytest.mark.parametrize("page_size", [1, 64, 700])
def test_items_in_activation_sets_come_with_the_biases_that_were_written(page_size):
    items = np.concatenate([ITEMS] * 3)  # enough pages for the others to be let go of
    gallery, biases, _ = fit(items, page_size=page_size)
    ids, activated = gallery.activated()
    rows = [IDS.index(item) for item in ids]
    assert ids == [IDS[row] for row in sorted(rows)]
    for name in BANKS:
        np.testing.assert_array_equal(activated.bias(name), biases[name][rows])
        assert set(activation_sets(gallery)[name]) == {ids[row] for row in np.flatnonzero(activated.activated(name))}


@pytest.mark.parametrize("page_size", [1, 3, 64])
def test_of_items_that_are_alike_the_first_is_activated(page_size):
    items = np.tile(np.eye(6, dtype=np.float32), (20, 1))
    gallery, _, _ = fit(items, banks={"query": np.eye(6)}, page_size=page_size, settings=FitSettings(Method.IS))
    assert activation_sets(gallery) == {"query": IDS[:6]}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.value)
def test_the_summaries_are_those_of_all_biases(metric):
    gallery, biases, _ = fit(ITEMS, metric=metric)
    statistics = statistics_of(gallery)
    weighted = (20.0 * biases["query"] + 5.0 * biases["gallery"]) / 25.0
    assert statistics.lowest_dual_adjustment == pytest.approx((weighted - weighted.mean()).min(), abs=1e-9)
    for name, bank in statistics.banks.items():
        values = biases[name]
        summary = [bank.bias.mean, bank.bias.min, bank.bias.max]
        np.testing.assert_allclose(summary, [values.mean(), values.min(), values.max()], rtol=1e-9)
        expected = np.quantile(values, [float(quantile) for quantile in bank.bias.quantiles])
        np.testing.assert_allclose(list(bank.bias.quantiles.values()), expected, rtol=1e-9)
        assert list(bank.bias.quantiles) == ["0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"]


@pytest.mark.parametrize(
    "pages", [[30_011] * 5, [150_000] + [1] * 2000], ids=["even pages", "a long tail of small ones"]
)
def test_quantiles_of_a_gallery_too_large_to_keep_are_near_the_true_ones(pages):
    # rising biases, so that a sample with too many items of any one part of the gallery would be far off
    angles = np.linspace(0.1, 1.5, sum(pages))
    items = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    gallery = GalleryFit(metric=Metric.COSINE, banks={"query": Bank.of([[1.0, 0.0]])}, settings=FitSettings(Method.IS))
    biases = [gallery.page(range(len(page)), page)[1]["query"] for page in np.split(items, np.cumsum(pages)[:-1])]
    quantiles = statistics_of(gallery).query.bias.quantiles
    expected = np.quantile(np.concatenate(biases), [float(quantile) for quantile in quantiles])
    np.testing.assert_allclose(list(quantiles.values()), expected, atol=1e-4)


def test_the_statistics_say_what_was_fitted():
    settings = FitSettings(Method.DIS, query_beta=20.0, gallery_beta=5.0)
    gallery, _, _ = fit(ITEMS, metric=Metric.DOT, settings=settings)
    statistics = statistics_of(gallery, generation=9, vector="thumb", version="3.2.1")
    assert (statistics.generation, statistics.vector, statistics.library_version) == (9, "thumb", "3.2.1")
    assert (statistics.method, statistics.metric, statistics.dimension) == ("dis", Metric.DOT, 6)
    assert (statistics.item_count, statistics.skipped_count) == (700, 0)
    assert statistics.fitted_at.tzinfo is not None
    for name, bank in statistics.banks.items():
        assert bank.fingerprint == Bank.of(BANKS[name]).fingerprint
        assert (bank.size, bank.beta) == (len(BANKS[name]), settings.beta(name))


def test_one_bank_has_no_dual_adjustment():
    gallery, biases, _ = fit(ITEMS, banks={"query": BANKS["query"]}, settings=FitSettings(Method.IS))
    statistics = statistics_of(gallery)
    assert list(biases) == list(statistics.banks) == ["query"]
    assert statistics.lowest_dual_adjustment is None


# --- items that cannot be used ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1, 5, 700])
def test_vectors_that_are_not_finite_are_skipped_and_counted(page_size):
    items = ITEMS[:20].copy()
    bad = {0: np.nan, 6: np.inf, 7: -np.inf, 19: np.nan}
    for row, value in bad.items():
        items[row, row % 6] = value
    good = [row for row in range(20) if row not in bad]
    gallery, biases, kept = fit(items, page_size=page_size)
    assert kept == [IDS[row] for row in good]
    for name, bank in BANKS.items():
        matrix = similarities(bank, items[good], Metric.COSINE)
        np.testing.assert_allclose(biases[name], bias(matrix, SETTINGS.beta(name)), atol=2e-6)
        assert set(activation_sets(gallery)[name]) == {IDS[good[item]] for item in activation_set(matrix)}
    statistics = statistics_of(gallery)
    assert (statistics.item_count, statistics.skipped_count) == (16, 4)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.value)
def test_a_vector_of_zeros_has_a_bias_like_any_other(metric):
    items = np.vstack([np.zeros((1, 6), dtype=np.float32), ITEMS[:5]])
    _, biases, kept = fit(items, metric=metric)
    assert len(kept) == 6
    expected = bias(similarities(BANKS["query"], items, metric), 20.0)
    np.testing.assert_allclose(biases["query"], expected, atol=2e-6)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.value)
def test_a_vector_too_long_for_float32_products_spoils_no_statistics(metric):
    items = ITEMS[:20].copy()
    items[3] = 1e25
    gallery, biases, kept = fit(items, metric=metric)
    statistics = statistics_of(gallery)
    assert statistics.item_count + statistics.skipped_count == 20
    for name in BANKS:
        assert len(biases[name]) == len(kept) == statistics.item_count
        assert np.isfinite(biases[name]).all()


@pytest.mark.parametrize("items", [ITEMS[:0], np.full((3, 6), np.nan, dtype=np.float32)], ids=["none", "none usable"])
def test_a_collection_without_a_usable_vector_is_refused(items):
    gallery, _, kept = fit(items)
    assert kept == []
    with pytest.raises(EmptyCollectionError, match=rf"usable vector 'image' \({len(items)} were skipped\)"):
        statistics_of(gallery)


# --- euclidean accuracy -------------------------------------------------------------------------------------------


def test_a_common_offset_does_not_cost_euclidean_accuracy():
    offset = np.float32(64.0)  # a power of two: adding it rounds the vectors only where they are rounded below
    items, bank = np.round(ITEMS[:50] * 1024) / 1024, np.round(BANKS["query"] * 1024) / 1024
    shifted = {"query": (bank + offset).astype(np.float32)}
    settings = FitSettings(Method.IS)
    _, biases, _ = fit((items + offset).astype(np.float32), banks=shifted, metric=Metric.EUCLIDEAN, settings=settings)
    expected = bias(similarities(bank, items, Metric.EUCLIDEAN), 20.0)
    np.testing.assert_allclose(biases["query"], expected, atol=1e-4)
