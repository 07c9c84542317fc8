"""What is tried: methods, simplest first, times betas."""

from __future__ import annotations

from typing import Any

import pytest

from dbnorm_vdb import InvalidParameterError, Method, UnsupportedMethodError
from dbnorm_vdb.tuning.grid import DEFAULT_METHODS, Setting, default_betas, make_grid, parse_betas, parse_methods


def grid(methods: list[Method], **betas: list[float]) -> list[Setting]:
    given = {"query": (), "gallery": (), **betas}
    return make_grid(methods, given, activation_k=2, nnn_k=3, iterations=4)


def test_raw_is_always_tried_and_first() -> None:
    assert grid([])[0].arguments == {"method": "raw"}
    assert grid([Method.IS], query=[5.0])[0].arguments == {"method": "raw"}


def test_each_setting_holds_what_its_method_depends_on_and_nothing_else() -> None:
    tried = grid([*DEFAULT_METHODS, Method.SINKHORN], query=[5.0], gallery=[2.0])
    nnn = [{"method": "nnn", "nnn_alpha": alpha, "nnn_k": 3} for alpha in (0.25, 0.5, 0.75, 1.0)]
    assert [setting.arguments for setting in tried] == [
        {"method": "raw"},
        {"method": "is", "query_beta": 5.0},
        {"method": "dis", "query_beta": 5.0, "activation_k": 2},
        *nnn,
        {"method": "sinkhorn", "query_beta": 5.0, "iterations": 4},
        {"method": "dual_is", "query_beta": 5.0, "gallery_beta": 2.0},
        {"method": "dual_dis", "query_beta": 5.0, "gallery_beta": 2.0, "activation_k": 2},
    ]


def test_dual_is_with_a_gallery_beta_of_0_is_tried_as_is() -> None:
    """`fit` has no gallery beta of 0: what it stands for is the method without the gallery bank."""
    tried = grid([Method.DUAL_IS, Method.DUAL_DIS], query=[5.0], gallery=[0.0, 2.0])
    assert [setting.in_words() for setting in tried] == [
        "raw",
        "is, query beta 5",
        "dis, query beta 5, activation k 2",
        "dual_is, query beta 5, gallery beta 2",
        "dual_dis, query beta 5, gallery beta 2, activation k 2",
    ]
    assert len(grid([Method.IS, Method.DUAL_IS], query=[5.0], gallery=[0.0])) == 2, "and once only"


def test_betas_for_both_banks_are_ascending_and_include_no_gallery_bank() -> None:
    assert parse_betas([20, 5.0]) == {"query": (5.0, 20.0), "gallery": (0.0, 5.0, 20.0)}
    assert parse_betas({"gallery": [3]}) == {"gallery": (3.0,)}


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([0.0, 5.0], "query betas"),
        ([-1.0], "query betas"),
        ([True], "query betas"),
        ({"query": []}, "query betas must be a list of numbers"),
        ({"query": "5"}, "got '5'"),
        ({"gallery": [False]}, "gallery betas"),
        ({"images": [5.0]}, "got 'images'"),
    ],
)
def test_betas_that_cannot_be_used_are_named(betas: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        parse_betas(betas)


def test_methods_are_those_that_the_banks_allow() -> None:
    assert parse_methods(None, ["query"]) == [Method.RAW, Method.IS, Method.DIS, Method.NNN]
    assert parse_methods(None, ["query", "gallery"]) == list(DEFAULT_METHODS)
    assert parse_methods("is", ["query"]) == [Method.IS]
    with pytest.raises(UnsupportedMethodError, match="'dual_is' needs a gallery bank"):
        parse_methods(["is", "dual_is"], ["query"])


@pytest.mark.parametrize("spread", [1e-4, 0.014, 0.14, 3.0])
def test_default_betas_follow_the_spread_of_the_similarities(spread: float) -> None:
    query, gallery = default_betas("query", spread), default_betas("gallery", spread)
    assert 0.4 <= spread * query[0] < spread * query[-1] <= 8.0
    assert len(query) >= 7, "close enough together to find a good one"
    assert gallery[0] == 0
    assert 0.25 <= spread * gallery[1] < spread * gallery[-1] <= 3.2


def test_bank_vectors_that_are_all_alike_leave_one_beta() -> None:
    assert default_betas("query", 0.0) == (1.0,)
    assert default_betas("gallery", float("nan")) == (0.0, 1.0)
