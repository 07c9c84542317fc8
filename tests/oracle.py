"""The formulas of the papers, evaluated literally on full matrices, to hold the library against.

Nothing here is stable, fast or shared with the library: exponentials, sums, ratios and products as they are printed.
`WIDE` is the platform's widest float, so that products of two inverted softmaxes keep their range; where that is no
more than float64 (Windows, macOS on arm64), `LARGEST_BETA` is lower.

Sources: inverted softmax and querybank normalisation, Bogolin et al., CVPR 2022, eq. 2 to 4; DBNorm, Wang et al.,
EMNLP 2023, eq. 4 to 9; NNN, Chowdhury et al., EMNLP 2024; DBSN, Pan et al., ACM MM 2025.
"""

import numpy as np

WIDE = np.longdouble
LARGEST_BETA = 200.0 if np.finfo(WIDE).maxexp > 1024 else 150.0
METHODS = ("raw", "is", "dis", "dual_is", "dual_dis", "nnn", "sinkhorn")


def wide(values):
    """`values` as an array of the platform's widest float."""
    return np.asarray(values, dtype=WIDE)


def inverted_softmax(similarities, bank_similarities, beta):
    """(q, n): `exp(beta s(q, g)) / sum_b exp(beta s(b, g))`."""
    return np.exp(beta * wide(similarities)) / np.exp(beta * wide(bank_similarities)).sum(axis=0)


def activation_set(bank_similarities, k=1):
    """The set of the items that are among the `k` nearest of at least one bank vector; ties by position."""
    return {
        int(item)
        for row in np.asarray(bank_similarities, dtype=np.float64)
        for item in sorted(range(len(row)), key=lambda item: (-row[item], item))[:k]
    }


def gates(similarities, bank_similarities, k=1):
    """(q,): whether the raw top-1 item of each query is in the bank's activation set."""
    members = activation_set(bank_similarities, k)
    return np.array([int(np.argmax(row)) in members for row in np.asarray(similarities, dtype=np.float64)], dtype=bool)


def sinkhorn_factors(bank_similarities, beta, iterations):
    """(n,): `exp(v)` after `iterations` item steps, with a bank step between each two."""
    kernel = np.exp(beta * wide(bank_similarities))
    item_factors = 1 / kernel.sum(axis=0)
    for _ in range(iterations - 1):
        bank_factors = 1 / (kernel * item_factors).sum(axis=1)
        item_factors = 1 / (kernel * bank_factors[:, None]).sum(axis=0)
    return item_factors


def mean_of_largest(bank_similarities, k):
    """(n,): the mean of the `k` largest similarities of the bank to each item."""
    return np.sort(wide(bank_similarities), axis=0)[::-1][:k].mean(axis=0)


def oracle_scores(
    method,
    similarities,
    query_bank=None,
    gallery_bank=None,
    query_beta=20.0,
    gallery_beta=10.0,
    activation_k=1,
    *,
    iterations=10,
    nnn_alpha=0.5,
    nnn_k=10,
):
    """(q, n): the method's normalised similarities as the papers print them. Only their order within a row counts.

    Two cases of the papers' `dual_dis` are not monotone in `s`, and are given the order that the library promises:
    with both gates closed the score is `s` (not `s * s`), and with one gate open items with `s <= 0` keep `s`, which
    places them after all the positive ones.
    """
    s = wide(similarities)
    if method == "raw":
        return s
    if method == "nnn":
        return s - nnn_alpha * mean_of_largest(query_bank, nnn_k)
    if method == "sinkhorn":
        return np.exp(query_beta * s) * sinkhorn_factors(query_bank, query_beta, iterations)
    query_factor = inverted_softmax(s, query_bank, query_beta)
    if method == "is":
        return query_factor
    query_open = gates(similarities, query_bank, activation_k)[:, None]
    if method == "dis":
        return np.where(query_open, query_factor, s)
    gallery_factor = inverted_softmax(s, gallery_bank, gallery_beta)
    if method == "dual_is":
        return query_factor * gallery_factor
    gallery_open = gates(similarities, gallery_bank, activation_k)[:, None]
    product = np.where(query_open, query_factor, s) * np.where(gallery_open, gallery_factor, s)
    one_open = query_open ^ gallery_open
    return np.where(~query_open & ~gallery_open | one_open & (s <= 0), s, product)


def bias(bank_similarities, beta):
    """(n,): `(log sum_b exp(beta s(b, g)) - log |B|) / beta`."""
    bank = np.exp(beta * wide(bank_similarities))
    return ((np.log(bank.sum(axis=0)) - np.log(WIDE(len(bank)))) / beta).astype(np.float64)


def additive_scores(
    method,
    similarities,
    query_bank=None,
    gallery_bank=None,
    query_beta=20.0,
    gallery_beta=10.0,
    activation_k=1,
    *,
    iterations=10,
    nnn_alpha=0.5,
    nnn_k=10,
):
    """(q, n) float64: the values that should be returned, on the similarity scale.

    `s - sum_B w_B (b_B - mean b_B)`; for `dual_dis` with bank B's gate alone open, `s - (b_B - mean b_B) +
    log(s) / beta_B` where `s > 0`, and NaN where `s <= 0`, since there only the order is promised.
    """
    s = np.asarray(similarities, dtype=np.float64)
    if method == "raw":
        return s
    if method == "nnn":
        query_bias = (nnn_alpha * mean_of_largest(query_bank, nnn_k)).astype(np.float64)
    elif method == "sinkhorn":
        factors = sinkhorn_factors(query_bank, query_beta, iterations)
        query_bias = (-np.log(factors) / query_beta).astype(np.float64)
    else:
        query_bias = bias(query_bank, query_beta)
    by_query = query_bias - query_bias.mean()
    if not method.startswith("dual"):
        closed = ~gates(similarities, query_bank, activation_k) if method == "dis" else np.zeros(len(s), dtype=bool)
        return np.where(closed[:, None], s, s - by_query)
    gallery_bias = bias(gallery_bank, gallery_beta)
    by_gallery = gallery_bias - gallery_bias.mean()
    both = s - (query_beta * by_query + gallery_beta * by_gallery) / (query_beta + gallery_beta)
    if method == "dual_is":
        return both
    logarithm = np.log(np.where(s > 0, s, np.nan))
    outcomes = {
        (True, True): both,
        (True, False): s - by_query + logarithm / query_beta,
        (False, True): s - by_gallery + logarithm / gallery_beta,
        (False, False): s,
    }
    opened = zip(gates(s, query_bank, activation_k), gates(s, gallery_bank, activation_k), strict=True)
    return np.array([outcomes[bool(q), bool(g)][row] for row, (q, g) in enumerate(opened)]).reshape(s.shape)


def ranking(scores, similarities):
    """Positions of one query's items, best first; ties by raw similarity, then by position."""
    return np.array(sorted(range(len(scores)), key=lambda item: (-scores[item], -similarities[item], item)), dtype=int)


def assert_same_order(order, oracle, *, relative=1e-10, absolute=0.0):
    """Assert that `order` (positions, best first) sorts one query's `oracle` scores in descending order.

    Items whose oracle scores differ by no more than the tolerance may stand either way round.
    """
    assert sorted(order) == list(range(len(oracle))), f"not a permutation of {len(oracle)} items: {order}"
    ranked = np.asarray(oracle)[order]
    for place in range(len(ranked) - 1):
        later = place + 1 + int(np.argmax(ranked[place + 1 :]))
        tolerance = absolute + relative * max(abs(ranked[place]), abs(ranked[later]))
        assert ranked[later] - ranked[place] <= tolerance, (
            f"item {order[later]} stands at {later}, after item {order[place]} at {place}, but the oracle scores it"
            f" {ranked[later]!r} against {ranked[place]!r}"
        )
