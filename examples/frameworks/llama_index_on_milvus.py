"""LlamaIndex on Milvus: the vector store makes its client, which one assignment wraps.

pip install "dbnorm-vdb[milvus-lite]" llama-index-vector-stores-milvus
python examples/frameworks/llama_index_on_milvus.py
"""

import tempfile

from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from pictures import ASKED, BANKS, CAPTIONS, PICTURES, SIZE, embed, show

from dbnorm_milvus import MilvusAdapter, wrap

folder = tempfile.TemporaryDirectory()
store = MilvusVectorStore(
    f"{folder.name}/pictures.db",  # yours: "http://localhost:19530"
    collection_name="pictures",
    dim=SIZE,
    similarity_metric="COSINE",
    use_async_client=False,
)
store.add([TextNode(text=text, embedding=vector) for text, vector in zip(CAPTIONS, PICTURES, strict=True)])


def search(caption: str) -> list[str]:
    return [node.text for node in store.query(VectorStoreQuery(embed(caption), similarity_top_k=5)).nodes]


show("raw", search(ASKED))
client = store.client
MilvusAdapter(client, "pictures").fit(**BANKS)  # once
store._milvusclient = wrap(client)  # what is new; for async calls the same with _async_milvusclient
show("normalised", search(ASKED))
client.close()
