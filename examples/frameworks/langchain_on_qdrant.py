"""LangChain on Qdrant: the vector store takes a client, so it takes a wrapped one.

pip install "dbnorm-vdb[qdrant]" langchain-qdrant && python examples/frameworks/langchain_on_qdrant.py
"""

from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore
from pictures import ASKED, BANKS, CAPTIONS, SIZE, embed, picture_of, show
from qdrant_client import QdrantClient, models

from dbnorm_qdrant import QdrantAdapter, wrap


class Model(Embeddings):
    """Stands for a model of pictures and texts."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [picture_of(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return embed(text)


client = QdrantClient(":memory:")  # yours: QdrantClient("http://localhost:6333")
client.create_collection("pictures", vectors_config=models.VectorParams(size=SIZE, distance=models.Distance.COSINE))
store = QdrantVectorStore(client, "pictures", Model())
store.add_texts(CAPTIONS)


def search(caption: str) -> list[str]:
    return [document.page_content for document in store.similarity_search(caption, k=5)]


show("raw", search(ASKED))
QdrantAdapter(client, "pictures").fit(**BANKS)  # once
store = QdrantVectorStore(wrap(client), "pictures", Model())  # what is new: wrap()
show("normalised", search(ASKED))
client.close()
