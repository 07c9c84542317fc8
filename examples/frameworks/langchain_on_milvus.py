"""LangChain on Milvus: the vector store makes its client, which one assignment wraps.

pip install "dbnorm-vdb[milvus-lite]" langchain-milvus && python examples/frameworks/langchain_on_milvus.py
"""

import tempfile

from langchain_core.embeddings import Embeddings
from langchain_milvus import Milvus
from pictures import ASKED, BANKS, CAPTIONS, embed, picture_of, show

from dbnorm_milvus import MilvusAdapter, wrap


class Model(Embeddings):
    """Stands for a model of pictures and texts."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [picture_of(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return embed(text)


folder = tempfile.TemporaryDirectory()
store = Milvus(
    Model(),
    collection_name="pictures",
    connection_args={"uri": f"{folder.name}/pictures.db"},  # yours: "http://localhost:19530"
    index_params={"index_type": "FLAT", "metric_type": "COSINE"},
    auto_id=True,
)
store.add_texts(CAPTIONS)


def search(caption: str) -> list[str]:
    return [document.page_content for document in store.similarity_search(caption, k=5)]


show("raw", search(ASKED))
client = store.client
MilvusAdapter(client, "pictures").fit(**BANKS)  # once
store._milvus_client = wrap(client)  # what is new; for async calls the same with _async_milvus_client
show("normalised", search(ASKED))
client.close()
