"""Simulated visitors, over HTTP: each wants one picture, searches by its text, looks down the list, and clicks.

    cd examples
    python -m service.visitors --count 3000

They recognise the picture they want in nine cases of ten, click another one in two of a hundred, and go on to the next
rank with a probability of 0.9: the cascade model of `dbnorm_vdb.experiments.simulation`.
"""

from __future__ import annotations

import argparse
import asyncio
import uuid

import httpx
import numpy as np

from dbnorm_vdb.demo import load_pictures
from dbnorm_vdb.experiments.simulation import cascade_clicks

ATTRACTION_OF_WANTED, ATTRACTION_OF_OTHERS, PATIENCE = 0.9, 0.02, 0.9


async def send_visitors(url: str, *, count: int, seed: int = 0, concurrency: int = 8, limit: int = 10) -> int:
    """Let so many visitors search once each, several at a time.

    Returns:
        How many clicked.
    """
    records = load_pictures().test.records
    rng = np.random.default_rng(seed)
    wanted = rng.integers(len(records), size=count).tolist()
    slots = asyncio.Semaphore(concurrency)

    async def visit(client: httpx.AsyncClient, row: int) -> bool:
        async with slots:
            asked = {"visitor": uuid.UUID(bytes=rng.bytes(16)).hex, "text": records[row]["text"], "limit": limit}
            answer = (await client.post("/experiment/search", json=asked)).raise_for_status().json()
            found = [item["id"] for item in answer["results"]]
            own = records[row]["id"]
            attraction = [ATTRACTION_OF_WANTED if item == own else ATTRACTION_OF_OTHERS for item in found]
            clicks = np.array(found)[cascade_clicks(attraction, rng, patience=PATIENCE)].tolist()
            for item in clicks:
                click = {"impression": answer["impression"], "item": item}
                (await client.post("/experiment/click", json=click)).raise_for_status()
            return bool(clicks)

    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
        return sum(await asyncio.gather(*(visit(client, row) for row in wanted)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Send simulated visitors to the example service.")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    clicked = asyncio.run(send_visitors(given.url, count=given.count, seed=given.seed))
    print(f"{given.count} visitors searched, {clicked} clicked; see {given.url}/pages/watch.html")


if __name__ == "__main__":
    main()
