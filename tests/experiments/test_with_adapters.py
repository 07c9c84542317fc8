"""Two methods of one adapter as the arms: a search service in a few lines, on real engines."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from adapters.world import World

from dbnorm_vdb.experiments import EventLog, Experiment, analyze

WORLD = World.make(n=60)
ARMS = ("raw", "dual_is")


@pytest.fixture
def images(quick_engine):
    collection = quick_engine.create(WORLD.items)
    adapter = quick_engine.adapter(collection)
    WORLD.fit(adapter)
    yield adapter
    adapter.drop()
    quick_engine.drop_collection(collection)


def expected(method, query):
    scores = WORLD.raw() if method == "raw" else WORLD.score_oracle(method)
    return [str(item) for item in np.argsort(-scores[query])[:5]]


def test_each_user_is_served_by_their_arm_and_the_log_says_what_they_saw(images, tmp_path):
    experiment = Experiment("hubs", arms=ARMS, salt="2025")
    log = EventLog(tmp_path)
    at = datetime(2025, 1, 1, tzinfo=timezone.utc)
    clicked = dict.fromkeys(ARMS, 0)
    for user in range(20):
        query = user % 12

        arm = experiment.assign(user)
        (hits,) = images.nearest(WORLD.queries[query : query + 1], limit=5, candidates=60, method=arm)
        impression = log.impression(experiment, user, arm, [hit.id for hit in hits], at=at)

        assert [str(hit.id) for hit in hits] == expected(arm, query)
        wanted = expected("dual_is", query)[0]  # which raw search may not have at the top
        if str(hits[0].id) == wanted:
            log.click(impression, hits[0].id, at=at + timedelta(seconds=5))
            clicked[arm] += 1
    log.close()
    report = analyze(tmp_path)
    assert {arm.arm: arm.clicks for arm in report.arms} == clicked
    assert report.arms[1].click_through.value == 1.0
    assert sum(arm.users for arm in report.arms) == 20


def test_both_arms_results_are_interleaved(images, tmp_path):
    experiment = Experiment("hubs", arms=ARMS, salt="2025")
    query = WORLD.queries[:1]
    with EventLog(tmp_path) as log:
        first, second = (images.nearest(query, limit=5, candidates=60, method=arm)[0] for arm in experiment.arms)
        shown = experiment.interleave("anna", first, second, id_of=lambda hit: hit.id)
        log.interleaved(experiment, shown)
    assert len(shown) == 5
    for arm in ARMS:
        own = [item for item, team in zip(shown.ids, shown.teams, strict=True) if team == arm]
        assert own == [item for item in expected(arm, 0) if item in own]
    assert {hit.id for hit in shown.items} <= {hit.id for hit in (*first, *second)}
