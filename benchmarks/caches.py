"""What it costs to hold the statistics of the items in memory, and not to.

    .venv/bin/python benchmarks/caches.py [--engines qdrant milvus-lite milvus-server] [--queries 200] [--repeats 5]
                                          [--data embeddings.npz]

Searches for 10 hits from the window that `fit` found, beside the client's own search for as many hits as that window,
measured as in `search.py`, on its data. First every adapter makes its first search, which for "all" reads the
statistics of the whole collection, and all searches once; so "lazy" holds what those asked for. Once it has room for
all of it, once for a tenth of the items.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from search import FIELDS, GALLERY_BANK, LIMIT, NAME, OWN_WINDOW, Data, Engine, Qdrant, medians, on_engines, spread

from dbnorm_milvus import MilvusAdapter
from dbnorm_qdrant import QdrantAdapter
from dbnorm_vdb.lookup import bytes_per_item

MODES = {"all": "all", "lazy": "lazy", "lazy, a tenth": "lazy", "none": "none"}


def adapters(engine: Engine, items: int) -> dict[str, Any]:
    """An adapter for each way of caching."""
    kind = QdrantAdapter if isinstance(engine, Qdrant) else MilvusAdapter
    room = {"lazy, a tenth": items // 10 * bytes_per_item(2)}
    return {
        name: kind(engine.client, NAME, cache=mode, **({"cache_bytes": room[name]} if name in room else {}))
        for name, mode in MODES.items()
    }


def searching(adapter: Any) -> Callable[[list[float]], Any]:
    if isinstance(adapter, QdrantAdapter):
        return lambda query: adapter.query_points(query=query, limit=LIMIT, with_payload=FIELDS)
    return lambda query: adapter.search(data=[query], limit=LIMIT, output_fields=FIELDS)


def compare(name: str, engine: Engine, data: Data, repeats: int) -> None:
    adapter: Any = engine.adapter()
    adapter.fit(data.bank, gallery_bank=GALLERY_BANK)
    window = adapter.status().active.calibration.window(LIMIT)
    queries = data.queries.tolist()
    caching = adapters(engine, len(data.gallery))
    variants = {mode: searching(one) for mode, one in caching.items()}
    own = engine.variants(adapter, window)[OWN_WINDOW]
    variants[OWN_WINDOW] = own
    own(queries[0])
    first: dict[str, float] = {}
    for mode in caching:
        started = time.perf_counter()
        variants[mode](queries[0])
        first[mode] = time.perf_counter() - started
    for query in queries:
        for search in variants.values():
            search(query)
    before = {mode: one.cache_info() for mode, one in caching.items()}
    passes = [medians(variants, queries, seed) for seed in range(repeats)]
    print(f"\n{name}: a window of {window}; the client's own search {middle(passes, OWN_WINDOW):.2f} ms")
    print(f"  {'cache':14} {'/ the client':>22} {'first search':>13} {'kept':>10} {'bytes':>9} {'found there':>12}")
    for mode, one in caching.items():
        info = one.cache_info()
        hits, misses = info.hits - before[mode].hits, info.misses - before[mode].misses
        share = f"{hits / (hits + misses):12.1%}" if hits + misses and mode != "none" else f"{'':12}"
        ratio = spread([of[mode] / of[OWN_WINDOW] for of in passes])
        print(f"  {mode:14} {ratio:>22} {1000 * first[mode]:10.0f} ms {info.items:10} {info.nbytes:9} {share}")


def middle(passes: list[dict[str, float]], variant: str) -> float:
    return 1000 * statistics.median(one[variant] for one in passes)


if __name__ == "__main__":
    on_engines(compare)
