"""Haystack on Milvus: the document store makes its client, which one assignment wraps.

pip install "dbnorm-vdb[milvus-lite]" milvus-haystack && python examples/frameworks/haystack_on_milvus.py
"""

import tempfile

from haystack import Document
from milvus_haystack import MilvusDocumentStore
from milvus_haystack.milvus_embedding_retriever import MilvusEmbeddingRetriever
from pictures import ASKED, BANKS, CAPTIONS, PICTURES, embed, show

from dbnorm_milvus import MilvusAdapter, wrap

folder = tempfile.TemporaryDirectory()
store = MilvusDocumentStore(
    collection_name="pictures",
    connection_args={"uri": f"{folder.name}/pictures.db"},  # yours: "http://localhost:19530"
    index_params={"index_type": "FLAT", "metric_type": "COSINE", "params": {}},
)
store.write_documents(
    [Document(content=text, embedding=vector) for text, vector in zip(CAPTIONS, PICTURES, strict=True)]
)
retriever = MilvusEmbeddingRetriever(store, top_k=5)


def search(caption: str) -> list[str]:
    return [document.content for document in retriever.run(embed(caption))["documents"]]


show("raw", search(ASKED))
client = store.client
MilvusAdapter(client, "pictures").fit(**BANKS)  # once
store._milvus_client = wrap(client)  # what is new
show("normalised", search(ASKED))
client.close()
