"""LlamaIndex on Qdrant: the vector store takes a client, so it takes a wrapped one.

pip install "dbnorm-vdb[qdrant]" llama-index-vector-stores-qdrant && python examples/frameworks/llama_index_on_qdrant.py
"""

from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.vector_stores.qdrant import QdrantVectorStore
from pictures import ASKED, BANKS, CAPTIONS, PICTURES, embed, show
from qdrant_client import QdrantClient

from dbnorm_qdrant import QdrantAdapter, wrap

client = QdrantClient(":memory:")  # yours: QdrantClient("http://localhost:6333")
store = QdrantVectorStore("pictures", client=client)
store.add([TextNode(text=text, embedding=vector) for text, vector in zip(CAPTIONS, PICTURES, strict=True)])


def search(caption: str) -> list[str]:
    return [node.text for node in store.query(VectorStoreQuery(embed(caption), similarity_top_k=5)).nodes]


show("raw", search(ASKED))
QdrantAdapter(client, "pictures").fit(**BANKS)  # once
store = QdrantVectorStore("pictures", client=wrap(client))  # what is new: wrap()
show("normalised", search(ASKED))
client.close()
