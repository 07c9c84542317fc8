"""An embedded Qdrant is counted where its points lie; the count is that of its filter."""

from __future__ import annotations

from typing import Any

import pytest
from adapters.world import World
from harness import QdrantEngine
from qdrant_client import QdrantClient, models

from dbnorm_qdrant import QdrantAdapter
from dbnorm_qdrant.local import count_with_value

VALUES: list[Any] = [
    None,
    [],
    {},
    "",
    0,
    False,
    [None],
    "text",
    {"b": None},
    {"b": []},
    {"b": {}},
    {"b": 0},
    [{"b": 1}],
]
WORLD = World.make(n=60)


def by_filter(client: QdrantClient, collection: str, path: str) -> int:
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
    return client.count(collection, models.Filter(must_not=[empty]), exact=True).count


@pytest.mark.parametrize("path", [("a",), ("a", "b"), ("a", "b", "c")])
def test_it_counts_as_the_filter_does(qdrant_local: QdrantEngine, path: tuple[str, ...]) -> None:
    client = qdrant_local.client()
    collection = qdrant_local.create(WORLD.items[: len(VALUES)], payloads=[{"a": value} for value in VALUES])
    qdrant_local.insert(collection, [100, 101], WORLD.items[:2], [{}, {"other": 1}])
    alias = qdrant_local.new_name()
    qdrant_local.point_alias(alias, collection)
    for gone in ([], [7, 100], [11]):
        if gone:
            qdrant_local.delete(collection, gone)
        for name in (collection, alias):
            assert count_with_value(client, name, *path) == by_filter(client, name, ".".join(path))
    qdrant_local.drop_collection(collection)


def test_a_collection_that_is_not_there_is_the_clients_error(qdrant_local: QdrantEngine) -> None:
    with pytest.raises(ValueError, match="Collection nowhere not found"):
        count_with_value(qdrant_local.client(), "nowhere", "a")


def test_a_version_that_keeps_them_elsewhere_is_asked_by_filter(
    qdrant_local: QdrantEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So far all do: if this client does not, this and the module can go."""
    collection = qdrant_local.create(WORLD.items)
    client, counted = qdrant_local.client(), []
    assert count_with_value(client, collection, "number") == 60
    held = client._client._get_collection(collection)

    class Elsewhere:
        """The collection without what is looked at."""

        def __getattr__(self, name: str) -> Any:
            if name == "payload":
                raise AttributeError(name)
            counted.append(name)
            return getattr(held, name)

    monkeypatch.setitem(client._client.collections, collection, Elsewhere())
    assert count_with_value(client, collection, "number") is None
    adapter = QdrantAdapter(client, collection)
    WORLD.fit(adapter)
    assert adapter.status().coverage == 1.0
    assert "count" in counted
    adapter.drop()
    monkeypatch.undo()
    qdrant_local.drop_collection(collection)
