"""What `normalize` refuses: each mistake has its own error, whose message carries what was seen."""

import numpy as np
import pytest

from dbnorm_vdb import (
    EmptyBankError,
    InvalidParameterError,
    InvalidVectorsError,
    UnsupportedMethodError,
    normalize,
)

SIMILARITIES = np.array([[0.9, 0.1, 0.2], [0.3, 0.8, 0.4]])
BANK = np.array([[0.5, 0.6, 0.7], [0.1, 0.2, 0.3]])


def call(**changed):
    arguments = {"similarities": SIMILARITIES, "query_bank": BANK, "gallery_bank": BANK, **changed}
    return normalize(arguments.pop("similarities"), **arguments)


def with_value(array, value):
    changed = array.copy()
    changed[0, 1] = value
    return changed


@pytest.mark.parametrize("method", ["raw", "is", "dual_dis"])
@pytest.mark.parametrize(
    ("similarities", "message"),
    [
        pytest.param([0.1, 0.2, 0.3], r"similarities: .*two-dimensional.*\(3,\)", id="a row"),
        pytest.param(np.zeros((2, 2, 3)), r"similarities: .*\(2, 2, 3\)", id="three-dimensional"),
        pytest.param(0.5, r"similarities: .*\(\)", id="a number"),
        pytest.param([[0.1, 0.2], [0.3]], "similarities: .*inhomogeneous", id="ragged"),
        pytest.param([["a", "b", "c"]], "similarities: .*'a'", id="text"),
        pytest.param(with_value(SIMILARITIES, np.nan), "similarities: 1 values are NaN or infinite", id="NaN"),
        pytest.param(with_value(SIMILARITIES, -np.inf), "similarities: 1 values are NaN or infinite", id="infinite"),
    ],
)
def test_similarities_must_be_a_finite_matrix(method, similarities, message):
    with pytest.raises(InvalidVectorsError, match=message):
        call(similarities=similarities, method=method)


@pytest.mark.parametrize("name", ["query_bank", "gallery_bank"])
@pytest.mark.parametrize(
    ("bank", "message"),
    [
        pytest.param([0.1, 0.2, 0.3], r"two-dimensional.*\(3,\)", id="a row"),
        pytest.param(BANK[:, :2], "2 columns, the similarities have 3 items", id="other items"),
        pytest.param(BANK.T, "2 columns, the similarities have 3 items", id="transposed"),
        pytest.param(with_value(BANK, np.nan), "1 values are NaN", id="NaN"),
        pytest.param(with_value(BANK, np.inf), "1 values are NaN or infinite", id="infinite"),
    ],
)
def test_banks_must_be_finite_matrices_over_the_same_items(name, bank, message):
    with pytest.raises(InvalidVectorsError, match=f"{name}: .*{message}"):
        call(**{name: bank})


@pytest.mark.parametrize("name", ["query_bank", "gallery_bank"])
def test_an_empty_bank_is_refused(name):
    with pytest.raises(EmptyBankError, match=rf"{name}: no vectors in it \(shape \(0, 3\)\)"):
        call(**{name: np.empty((0, 3))})


@pytest.mark.parametrize(
    ("method", "missing"),
    [
        *((method, "query") for method in ("is", "dis", "nnn", "sinkhorn", "dual_is", "dual_dis")),
        *((method, "gallery") for method in ("dual_is", "dual_dis")),
    ],
)
def test_a_method_without_its_bank_says_which_one_it_needs(method, missing):
    with pytest.raises(UnsupportedMethodError, match=f"'{method}' needs a {missing} bank; pass {missing}_bank="):
        call(method=method, **{f"{missing}_bank": None})


@pytest.mark.parametrize("method", ["is", "dis", "nnn", "sinkhorn"])
def test_methods_of_one_bank_do_not_ask_for_a_gallery_bank(method):
    np.testing.assert_array_equal(call(method=method, gallery_bank=None), call(method=method))


def test_raw_needs_no_bank_and_changes_nothing():
    np.testing.assert_array_equal(call(method="raw", query_bank=None, gallery_bank=None), SIMILARITIES)


@pytest.mark.parametrize("method", ["dualis", "IS", "", None, 3])
def test_an_unknown_method_is_named_with_the_known_ones(method):
    with pytest.raises(UnsupportedMethodError, match=f"{method!r}.*raw, is, dis, dual_is, dual_dis, nnn, sinkhorn"):
        call(method=method)


@pytest.mark.parametrize("name", ["query_beta", "gallery_beta"])
@pytest.mark.parametrize("beta", [0, -1.5, float("nan"), float("inf"), None, "warm", True])
def test_a_beta_is_a_finite_number_above_zero(name, beta):
    with pytest.raises(InvalidParameterError, match=f"{name} .*got {beta!r}"):
        call(**{name: beta})


@pytest.mark.parametrize("name", ["activation_k", "iterations", "nnn_k"])
@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused(name, count):
    with pytest.raises(InvalidParameterError, match=f"{name} must be at least 1, got {count}"):
        call(**{name: count})


@pytest.mark.parametrize(("method", "name"), [("dis", "activation_k"), ("sinkhorn", "iterations"), ("nnn", "nnn_k")])
@pytest.mark.parametrize("count", [1.5, float("nan"), "two", None])
def test_a_count_is_a_whole_number(method, name, count):
    with pytest.raises(InvalidParameterError, match=f"{name} .*{count}"):
        call(method=method, **{name: count})


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), None, "half", True])
def test_the_weight_of_nnn_is_finite(alpha):
    with pytest.raises(InvalidParameterError, match=f"nnn_alpha must be a finite number, got {alpha!r}"):
        call(method="nnn", nnn_alpha=alpha)
