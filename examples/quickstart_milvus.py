"""DBNorm on Milvus in five lines. Runs as it is: Milvus Lite in a temporary folder, the data comes with the package.

pip install "dbnorm-vdb[milvus-lite]" && python examples/quickstart_milvus.py
"""

import tempfile

from pymilvus import MilvusClient

from dbnorm_milvus import MilvusAdapter
from dbnorm_vdb.demo import load_pictures

data = load_pictures()

# What you have already: a client, and a collection of pictures.
folder = tempfile.TemporaryDirectory()
client = MilvusClient(f"{folder.name}/quickstart.db")  # yours: MilvusClient("http://localhost:19530")
client.create_collection("images", dimension=256, metric_type="COSINE")
records = zip(data.test.records, data.test.pictures.tolist(), strict=True)
client.insert("images", [{"id": r["id"], "vector": v, "title": r["text"]} for r, v in records])

# What is new: wrap it, fit once with queries and pictures like those you serve, search as before.
images = MilvusAdapter(client, "images")
images.fit(query_bank=data.train.texts, gallery_bank=data.train.pictures, query_beta=20, gallery_beta=5)

row = next(row for row, record in enumerate(data.test.records) if record["text"].startswith("pasta;"))
wanted, query = data.test.records[row], data.test.texts[row].tolist()
for method in ("raw", "dual_is"):
    (hits,) = images.search(data=[query], limit=5, output_fields=["title"], method=method)
    print(f"\n{wanted['text']!r}, {method}:")
    for hit in hits:
        print(f"  {hit['distance']:.3f} {'✓' if hit['id'] == wanted['id'] else ' '} {hit['entity']['title']:.60}")

print(f"\n{images.status().fitted_count} items have statistics; drop() removes them without a trace")
images.drop()
client.close()
