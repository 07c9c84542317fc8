"""DBNorm on Qdrant in five lines. Runs as it is: the collection is in memory, the data comes with the package.

pip install "dbnorm-vdb[qdrant]" && python examples/quickstart_qdrant.py
"""

from qdrant_client import QdrantClient, models

from dbnorm_qdrant import QdrantAdapter
from dbnorm_vdb.demo import load_pictures

data = load_pictures()

# What you have already: a client, and a collection of pictures.
client = QdrantClient(":memory:")  # yours: QdrantClient(url="http://localhost:6333")
client.create_collection("images", vectors_config=models.VectorParams(size=256, distance=models.Distance.COSINE))
records = zip(data.test.records, data.test.pictures.tolist(), strict=True)
client.upsert("images", [models.PointStruct(id=r["id"], vector=v, payload={"title": r["text"]}) for r, v in records])

# What is new: wrap it, fit once with queries and pictures like those you serve, search as before.
images = QdrantAdapter(client, "images")
images.fit(query_bank=data.train.texts, gallery_bank=data.train.pictures, query_beta=20, gallery_beta=5)

row = next(row for row, record in enumerate(data.test.records) if record["text"].startswith("pasta;"))
wanted, query = data.test.records[row], data.test.texts[row]
for method in ("raw", "dual_is"):
    points = images.query_points(query=query, limit=5, method=method).points
    print(f"\n{wanted['text']!r}, {method}:")
    for point in points:
        print(f"  {point.score:.3f} {'✓' if point.id == wanted['id'] else ' '} {point.payload['title']:.60}")

print(f"\n{images.status().fitted_count} items have statistics; drop() removes them without a trace")
images.drop()
