"""What a fit is told is checked when it is told, before anything is read or written."""

import numpy as np
import pytest

from dbnorm_vdb import Bank, InvalidParameterError, Metric, UnsupportedMethodError
from dbnorm_vdb.fitting import FitSettings
from dbnorm_vdb.methods import Method
from dbnorm_vdb.store import VectorInfo
from dbnorm_vdb.writing import work_key

BANK = np.ones((2, 3))


def test_the_defaults_are_the_papers_method_with_betas_20_and_10():
    settings = FitSettings()
    assert (settings.method, settings.beta("query"), settings.beta("gallery")) == (Method.DUAL_IS, 20.0, 10.0)
    assert (settings.activation_k, settings.page_size, settings.backend) == (1, None, "auto")


@pytest.mark.parametrize("name", ["query_beta", "gallery_beta"])
@pytest.mark.parametrize("beta", [0, -1.5, float("nan"), float("inf"), None, "warm", True])
def test_a_beta_is_a_finite_number_above_zero(name, beta):
    with pytest.raises(InvalidParameterError, match=f"{name} .*got {beta!r}"):
        FitSettings(**{name: beta})


def test_a_page_is_about_a_million_numbers_by_default():
    assert [FitSettings().items_at_a_time(dimension) for dimension in (2, 256, 512, 1536, 2**21)] == [
        4096,
        4096,
        2048,
        682,
        1,
    ]
    assert FitSettings(page_size=10).items_at_a_time(256) == 10


@pytest.mark.parametrize("name", ["activation_k", "iterations", "sample_size", "nnn_k"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "10", None, True])
def test_a_count_is_a_whole_number_above_zero(name, value):
    with pytest.raises(InvalidParameterError, match=f"{name} must be (?:at least 1|an integer), got {value!r}"):
        FitSettings(**{name: value})


@pytest.mark.parametrize("value", [0, -1, 1.5, "10", True])
def test_a_page_has_one_item_or_more(value):
    with pytest.raises(InvalidParameterError, match=f"page_size must be (?:at least 1|an integer), got {value!r}"):
        FitSettings(page_size=value)


def test_a_count_may_be_a_numpy_integer():
    assert FitSettings(page_size=np.int64(10)).page_size == 10


def test_an_unknown_backend_is_refused():
    with pytest.raises(InvalidParameterError, match="auto, numpy, torch, got 'cuda'"):
        FitSettings(backend="cuda")


def test_an_unknown_precision_is_refused():
    with pytest.raises(InvalidParameterError, match="float32, tf32, bfloat16, got 'float16'"):
        FitSettings(precision="float16")


def test_a_precision_that_the_vectors_or_the_backend_do_not_have_is_refused():
    FitSettings().check_backend(Metric.EUCLIDEAN)
    with pytest.raises(InvalidParameterError, match="'tf32' needs backend='torch'"):
        FitSettings(precision="tf32", backend="numpy").check_backend(Metric.COSINE)
    with pytest.raises(InvalidParameterError, match="'bfloat16' is for float32 vectors; the bank is float64"):
        FitSettings(precision="bfloat16").check_backend(Metric.EUCLIDEAN)


@pytest.mark.parametrize("alpha", [float("nan"), float("-inf"), None, "half", True])
def test_the_weight_of_nnn_is_a_finite_number(alpha):
    with pytest.raises(InvalidParameterError, match=f"nnn_alpha must be a finite number, got {alpha!r}"):
        FitSettings(nnn_alpha=alpha)


def test_nnn_is_computed_where_it_is_the_method():
    assert FitSettings(Method.NNN).nnn == (0.5, 10)
    assert FitSettings(Method.IS, nnn_alpha=0.7, nnn_k=3).nnn is None


def test_another_alpha_or_k_of_nnn_is_other_work_but_only_for_nnn():
    info, banks = VectorInfo("", 3, Metric.DOT), {"query": Bank.of(BANK)}

    def keys(method):
        numbers = ({}, {"nnn_alpha": 0.7}, {"nnn_k": np.int64(3)})
        return {work_key(info, banks, FitSettings(method, **given), 0) for given in numbers}

    assert len(keys(Method.NNN)) == 3
    assert len(keys(Method.IS)) == 1


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (Method.IS, {}, "'is' needs a query bank: pass query_bank="),
        (Method.DIS, {"gallery": BANK}, "'dis' needs a query bank"),
        (Method.SINKHORN, {"gallery": BANK}, "'sinkhorn' needs a query bank"),
        (Method.NNN, {"gallery": BANK}, "'nnn' needs a query bank"),
        (Method.DUAL_IS, {"gallery": BANK}, "'dual_is' needs a query bank"),
        (Method.DUAL_IS, {"query": BANK}, "needs a gallery bank: pass gallery_bank=.* or pick method='is'"),
        (Method.DUAL_DIS, {"query": BANK, "gallery": None}, "'dual_dis' needs a gallery bank"),
        (Method.RAW, {}, "nothing to fit: pass query_bank="),
    ],
)
def test_a_method_needs_its_banks(method, given, message):
    with pytest.raises(UnsupportedMethodError, match=message):
        FitSettings(method).check_banks(given)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        (Method.IS, {"query": BANK}),
        (Method.IS, {"query": BANK, "gallery": BANK}),
        (Method.DUAL_DIS, {"query": BANK, "gallery": 500}),
        (Method.RAW, {"query": None, "gallery": BANK}),
    ],
)
def test_banks_that_suffice_are_accepted(method, given):
    FitSettings(method).check_banks(given)
