"""Vector stores of other frameworks on a wrapped client: unmodified where they take one, else by one assignment.

They come with the extra `frameworks`, and are skipped without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import World
from qdrant_client import QdrantClient, models

from dbnorm_qdrant import QdrantAdapter, wrap

WORLD = World.make("dot", n=150)
CONFIG = models.VectorParams(size=8, distance=models.Distance.DOT)
QUERY = WORLD.queries[0].tolist()


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


def normalised(client: QdrantClient, collection: str, field: str, limit: int = 5) -> list[str]:
    """Fit, and say what the adapter finds."""
    adapter: Any = QdrantAdapter(client, collection)
    WORLD.fit(adapter)
    found = adapter.query_points(QUERY, limit=limit).points
    assert found != client.query_points(collection, QUERY, using=adapter.vector_name or None, limit=limit).points
    return [_text(point.payload, field) for point in found]


def _text(payload: Any, field: str) -> str:
    return str(payload[field])


def test_langchain(client: QdrantClient) -> None:
    module = pytest.importorskip("langchain_qdrant")
    from langchain_core.embeddings import Embeddings

    class Fixed(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [WORLD.items[int(text.split()[1]) if text.startswith("item ") else 0].tolist() for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return QUERY

    client.create_collection("documents", vectors_config=CONFIG)
    store = module.QdrantVectorStore(
        client=wrap(client, statistics_ttl=0.0),
        collection_name="documents",
        embedding=Fixed(),
        distance=models.Distance.DOT,
    )
    store.add_texts([f"item {row}" for row in range(150)])
    raw = [document.page_content for document in store.similarity_search("?", k=5)]
    wanted = normalised(client, "documents", "page_content")
    assert [document.page_content for document in store.similarity_search("?", k=5)] == wanted != raw
    store.add_texts(["item 3"])
    assert QdrantAdapter(client, "documents").status().coverage == 1.0
    diverse = models.NearestQuery(nearest=QUERY, mmr=models.Mmr(diversity=0.5, candidates_limit=20))
    points = QdrantAdapter(client, "documents").query_points(diverse, limit=3).points
    assert [document.page_content for document in store.max_marginal_relevance_search("?", k=3)] == [
        _text(point.payload, "page_content") for point in points
    ]


def test_llama_index(client: QdrantClient) -> None:
    module = pytest.importorskip("llama_index.vector_stores.qdrant")
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores import VectorStoreQuery

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # payload indexes in local mode
        store = module.QdrantVectorStore("nodes", client=wrap(client, statistics_ttl=0.0), dense_config=CONFIG)
        store.add([TextNode(text=f"item {i}", embedding=vector) for i, vector in enumerate(WORLD.items.tolist())])

    def found() -> list[str]:
        return [node.text for node in store.query(VectorStoreQuery(QUERY, similarity_top_k=5)).nodes]

    raw = found()
    adapter: Any = QdrantAdapter(client, "nodes")
    WORLD.fit(adapter)
    points = {str(p.id) for p in adapter.query_points(QUERY, limit=5).points}
    result = store.query(VectorStoreQuery(QUERY, similarity_top_k=5))
    assert found() != raw
    assert set(result.ids) == points


def test_haystack() -> None:
    module = pytest.importorskip("haystack_integrations.document_stores.qdrant")
    from haystack import Document
    from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever

    store = module.QdrantDocumentStore(":memory:", index="documents", embedding_dim=8, similarity="dot_product")
    store.count_documents()  # it makes its client when it is first used
    client = store._client
    store._client = wrap(client, statistics_ttl=0.0)
    store.write_documents([Document(content=f"item {i}", embedding=v) for i, v in enumerate(WORLD.items.tolist())])
    retriever = QdrantEmbeddingRetriever(store, top_k=5)

    def found() -> list[str]:
        return [document.content for document in retriever.run(QUERY)["documents"]]

    raw = found()
    wanted = normalised(client, "documents", "content")
    assert found() == wanted != raw
    assert np.isfinite([document.score for document in retriever.run(QUERY)["documents"]]).all()
    client.close()
