"""Vector stores of other frameworks on a wrapped `MilvusClient`: they build their own, so that one assignment wraps it.

They come with the extras `frameworks` and `frameworks-pymilvus2`, and are skipped without them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters.world import World
from pymilvus import MilvusClient

from dbnorm_milvus import MilvusAdapter, wrap

WORLD = World.make("dot", n=150)
QUERY = WORLD.queries[0].tolist()
ITEMS = WORLD.items.tolist()


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


def assert_normalised(client: MilvusClient, collection: str, text: str, found: Callable[[], list[str]]) -> None:
    """After a fit, and not before, the store finds what the adapter finds."""
    adapter: Any = MilvusAdapter(client, collection)
    raw = found()
    WORLD.fit(adapter)
    (hits,) = adapter.search([QUERY], limit=5, output_fields=[text])
    wanted = [hit["entity"][text] for hit in hits]
    assert found() == wanted != raw


def test_langchain(uri: str) -> None:
    module = pytest.importorskip("langchain_milvus")
    from langchain_core.embeddings import Embeddings

    class Fixed(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [ITEMS[int(text.split()[1])] for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return QUERY

    store = module.Milvus(
        Fixed(),
        connection_args={"uri": uri},
        index_params={"index_type": "FLAT", "metric_type": "IP"},
        auto_id=True,
    )
    client = store.client
    store._milvus_client, store._async_milvus_client = wrap(client, statistics_ttl=0.0), None
    store.add_texts([f"item {row}" for row in range(150)])
    assert_normalised(
        client,
        store.collection_name,
        "text",
        lambda: [document.page_content for document in store.similarity_search("?", k=5)],
    )
    store.add_texts(["item 3"])
    assert MilvusAdapter(client, store.collection_name).status().coverage == 1.0
    client.close()


def test_langchain_async(uri: str) -> None:
    """Its async client is another one, and is wrapped like the first."""
    module = pytest.importorskip("langchain_milvus")
    from langchain_core.embeddings import FakeEmbeddings

    async def search() -> list[list[str]]:
        store = module.Milvus(
            FakeEmbeddings(size=8),
            connection_args={"uri": uri},
            index_params={"index_type": "FLAT", "metric_type": "IP"},
            auto_id=True,
        )
        store.add_embeddings([f"item {row}" for row in range(150)], ITEMS)
        WORLD.fit(MilvusAdapter(store.client, store.collection_name))
        documents = [await store.asimilarity_search_by_vector(QUERY, k=5)]
        store._milvus_client, store._async_milvus_client = wrap(store.client), wrap(store.aclient)
        documents += [await store.asimilarity_search_by_vector(QUERY, k=5)]
        documents += [store.similarity_search_by_vector(QUERY, k=5)]
        await store.aclient.close()
        store.client.close()
        return [[document.page_content for document in found] for found in documents]

    raw, found, wanted = asyncio.run(search())
    assert found == wanted != raw


def test_llama_index(uri: str) -> None:
    module = pytest.importorskip("llama_index.vector_stores.milvus")
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores import VectorStoreQuery

    store = module.MilvusVectorStore(uri, collection_name="nodes", dim=8, use_async_client=False)
    client = store.client
    store._milvusclient = wrap(client, statistics_ttl=0.0)
    store.add([TextNode(text=f"item {row}", embedding=vector) for row, vector in enumerate(ITEMS)])
    client.flush("nodes")

    def found() -> list[str]:
        return list(store.query(VectorStoreQuery(QUERY, similarity_top_k=5)).ids)

    assert_normalised(client, "nodes", "id", found)
    client.close()


def test_haystack(uri: str) -> None:
    module = pytest.importorskip("milvus_haystack")
    from haystack import Document
    from milvus_haystack.milvus_embedding_retriever import MilvusEmbeddingRetriever

    store = module.MilvusDocumentStore(
        connection_args={"uri": uri}, index_params={"index_type": "FLAT", "metric_type": "IP", "params": {}}
    )
    client = store.client
    store._milvus_client = wrap(client, statistics_ttl=0.0)
    store.write_documents([Document(content=f"item {row}", embedding=vector) for row, vector in enumerate(ITEMS)])
    retriever = MilvusEmbeddingRetriever(store, top_k=5)
    assert_normalised(
        client,
        store.collection_name,
        "text",
        lambda: [document.content for document in retriever.run(QUERY)["documents"]],
    )
    client.close()
