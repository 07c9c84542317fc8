"""Haystack on Qdrant: the document store makes its client when it is first used; one assignment wraps it.

pip install "dbnorm-vdb[qdrant]" qdrant-haystack && python examples/frameworks/haystack_on_qdrant.py
"""

from haystack import Document
from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from pictures import ASKED, BANKS, CAPTIONS, PICTURES, SIZE, embed, show

from dbnorm_qdrant import QdrantAdapter, wrap

store = QdrantDocumentStore(":memory:", index="pictures", embedding_dim=SIZE)  # yours: url="http://localhost:6333"
store.write_documents(
    [Document(content=text, embedding=vector) for text, vector in zip(CAPTIONS, PICTURES, strict=True)]
)
retriever = QdrantEmbeddingRetriever(store, top_k=5)


def search(caption: str) -> list[str]:
    return [document.content for document in retriever.run(embed(caption))["documents"]]


show("raw", search(ASKED))
client = store._client
QdrantAdapter(client, "pictures").fit(**BANKS)  # once
store._client = wrap(client)  # what is new; for async calls the same with _async_client
show("normalised", search(ASKED))
client.close()
