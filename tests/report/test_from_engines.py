"""From a collection to the page: payloads as the engines give them back."""

import base64

from adapters.world import World
from harness import Engine
from report.made import data_url, noise
from report.test_page import Page, check_safe

from dbnorm_vdb.evaluation.comparing import compare

ATTACK = "<script>window.pwned=1</script><img src=x onerror=alert(1)>"


def test_pictures_and_texts_come_from_the_collection_and_are_escaped(quick_engine: Engine, tmp_path):
    world = World.make(n=30)
    stored = [
        {"title": f"{ATTACK} {row}", "image": data_url(noise(row, 24)) if row % 2 else "javascript:alert(1)"}
        for row in range(len(world.items))
    ]
    collection = quick_engine.create(world.items, payloads=stored)
    adapter = quick_engine.adapter(collection)
    adapter.fit(query_bank=world.query_bank, method="is", backend="numpy")
    found = compare(
        ["raw", "is"], world.queries, adapter=adapter, relevant=[0] * len(world.queries), depth=20, resamples=100
    )
    path = found.report(tmp_path / "r.html", text_field="title", image_field="image")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    check_safe(page, text)
    assert f"{ATTACK} {found.arm('raw').hubness.hubs[0].item}" in page.text
    assert text.count("url(data:image/webp;base64,") > 5
    assert base64.b64encode(noise(1, 24)).decode() not in text
    assert "at an address elsewhere" in page.text
    quick_engine.drop_collection(collection)
