"""`analyze` on logs small enough to be worked out by hand: which events count, for whom, and what is said of them."""

import random
import sys
from datetime import datetime, timedelta, timezone
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from dbnorm_vdb import EventLogError, InvalidParameterError, MissingDependencyError
from dbnorm_vdb.experiments import EventLog, Experiment, ExperimentReport, Interleaved, analyze

START = datetime(2025, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
HUBS = Experiment("hubs", ("raw", "dual_is"))


class Written:
    """A log that is written event by event, at hours from the start."""

    def __init__(self, path):
        self.path = path
        self.log = EventLog(path)

    def shown(self, key, arm, hour=0.0, *, items=(1, 2, 3), clicks=(), experiment=HUBS, impression=None):
        """An impression; its id. `clicks` are (item, hours after it)."""
        made = self.log.impression(experiment, key, arm, items, impression=impression, at=START + hour * HOUR)
        for item, later in clicks:
            self.click(made, item, hour + later)
        return made

    def interleaved(self, key, teams, hour=0.0, *, clicks=(), first="raw", experiment=HUBS):
        """An interleaved impression of items 0, 1, 2, ... of these teams."""
        ids = tuple(str(item) for item in range(len(teams)))
        made = self.log.interleaved(
            experiment,
            Interleaved(ids, ids, tuple(teams), first, str(key), f"{key}-{hour}-{random.random()}"),
            at=START + hour * HOUR,
        )
        for item in clicks:
            self.click(made, item, hour)

    def click(self, impression, item, hour=0.0):
        self.log.click(impression, item, at=START + hour * HOUR)

    def analyze(self, **settings):
        return analyze(self.path, **settings)


@pytest.fixture
def written(tmp_path):
    made = Written(tmp_path)
    yield made
    made.log.close()


def arm(report, name):
    return next(found for found in report.arms if found.arm == name)


def test_every_user_counts_once_with_their_mean(written):
    written.shown("anna", "raw", clicks=[(2, 0.01)])
    written.shown("anna", "raw", 1)
    written.shown("anna", "raw", 2)
    written.shown("berta", "raw")
    written.shown("carla", "dual_is", clicks=[(3, 0.02), (1, 0.03)])
    report = written.analyze()
    raw, dual = arm(report, "raw"), arm(report, "dual_is")
    assert (raw.users, raw.impressions, raw.clicks) == (2, 4, 1)
    assert raw.click_through.value == pytest.approx((1 / 3 + 0) / 2)
    assert raw.abandonment.value == pytest.approx(1 - (1 / 3 + 0) / 2)
    assert raw.reciprocal_rank.value == pytest.approx((1 / 3 * 1 / 2 + 0) / 2)
    assert (dual.users, dual.impressions, dual.clicks) == (1, 1, 2)
    assert dual.reciprocal_rank.value == pytest.approx(1 / 3), "of the first click in time, not the best rank"
    assert (report.final_users, report.open_users, report.events) == (3, 0, 8)


def test_impressions_without_items_are_abandoned(written):
    written.shown("anna", "raw", items=())
    written.shown("berta", "dual_is", items=())
    assert arm(written.analyze(), "raw").abandonment.value == 1.0


def test_clicks_count_once_and_only_on_what_was_shown(written):
    made = written.shown("anna", "raw", clicks=[(1, 0.1), (1, 0.2), (1, 0.3), (9, 0.1)])
    written.shown("berta", "dual_is")
    written.click("unknown", 1)
    written.click(made, "1")
    report = written.analyze()
    assert arm(report, "raw").clicks == 1
    tally = report.tally
    assert (tally.duplicate_clicks, tally.foreign_clicks, tally.orphan_clicks) == (3, 1, 1)
    assert any("1 of 6 clicks are on impressions that are not in the log" in text for text in report.warnings)
    assert any("1 of 6 clicks are on items that their impression did not show" in text for text in report.warnings)


def test_of_duplicate_clicks_the_earliest_tells_which_came_first(written):
    made = written.shown("anna", "raw")
    for item, hour in ((3, 0.2), (1, 0.3), (1, 0.1)):
        written.click(made, item, hour)
    written.shown("berta", "dual_is")
    assert arm(written.analyze(), "raw").reciprocal_rank.value == 1.0


def test_an_impression_logged_twice_counts_once(written):
    for _ in range(2):
        written.shown("anna", "raw", impression="same", clicks=[(1, 0)])
    written.shown("berta", "dual_is")
    report = written.analyze()
    assert (arm(report, "raw").impressions, arm(report, "raw").clicks) == (1, 1)
    assert (report.tally.duplicate_impressions, report.tally.duplicate_clicks) == (1, 1)


def test_what_users_do_after_their_window_does_not_count(written):
    written.shown("anna", "raw", 0, clicks=[(1, 0.5), (2, 1.5)])
    written.shown("anna", "raw", 0.9)
    written.shown("anna", "raw", 1.0, clicks=[(1, 0.1)])
    written.shown("berta", "dual_is", 3, clicks=[(1, 0.9)])
    report = written.analyze(window=HOUR)
    assert (arm(report, "raw").impressions, arm(report, "raw").clicks) == (2, 1)
    assert arm(report, "raw").click_through.value == 0.5
    assert arm(report, "dual_is").clicks == 1, "a window begins with the user's own first impression"
    assert (report.tally.late_impressions, report.tally.late_clicks) == (1, 2)


def test_users_count_when_their_window_is_over(written):
    written.shown("anna", "raw", 0)
    written.shown("berta", "dual_is", 2, clicks=[(1, 0)])
    early = written.analyze(until=START + 25 * HOUR)
    assert (early.final_users, early.open_users) == (1, 1)
    assert (arm(early, "raw").users, arm(early, "dual_is").users) == (1, 0)
    assert arm(early, "dual_is").click_through is None
    assert "no user's window is over" in early.verdict
    assert early.sample_ratios[0].counts == {"raw": 1, "dual_is": 1}, "who is in which arm is known at once"
    late = written.analyze(until=START + 26 * HOUR)
    assert (late.final_users, late.open_users) == (2, 0)


def test_what_happened_after_the_time_of_the_report_is_left_out(written):
    written.shown("anna", "raw", 0, clicks=[(1, 5)])
    written.shown("berta", "dual_is", 0)
    written.shown("carla", "raw", 3)
    report = written.analyze(window=HOUR, until=START + 2 * HOUR)
    assert report.tally.later_events == 2
    assert (report.final_users, report.open_users) == (2, 0)
    assert any("2 of 4 events are later" in text for text in report.warnings)


def test_robots_are_left_out(written):
    for hour in range(6):
        written.shown("robot", "raw", hour / 10, clicks=[(1, 0)])
        written.shown("slow", "raw", hour)
    written.shown("berta", "dual_is")
    report = written.analyze(max_impressions=5, window=HOUR)
    assert arm(report, "raw").users == 1
    assert (report.tally.robots, report.tally.robot_impressions) == (1, 6)
    assert written.analyze(max_impressions=6, window=HOUR).tally.robots == 0


def test_a_user_who_changed_sides_counts_for_the_first(written):
    written.shown("anna", "raw", 0)
    written.shown("anna", "dual_is", 1, clicks=[(1, 0)])
    written.shown("berta", "dual_is", 0)
    report = written.analyze()
    assert arm(report, "raw").click_through.value == 0.5
    assert (arm(report, "raw").users, arm(report, "dual_is").users) == (1, 1)
    assert report.tally.switched_users == 1
    assert any("several arms" in text for text in report.warnings)


def test_the_order_of_lines_and_files_does_not_matter(tmp_path):
    fill_split(Written(tmp_path / "one"), users=40)
    lines = (tmp_path / "one" / "000001.jsonl").read_text().split("\n\n")
    random.Random(0).shuffle(lines)
    (tmp_path / "two").mkdir()
    for number, part in ((1, lines[:30]), (2, lines[30:])):
        (tmp_path / "two" / f"{number:06d}.jsonl").write_text("\n".join(part))
    now = START + 1000 * HOUR
    assert analyze(tmp_path / "one", until=now) == analyze(tmp_path / "two", until=now)


# --- split ---------------------------------------------------------------------------------------------------------


def fill_split(written, *, users, first=0, rates=(0.3, 0.3), experiment=HUBS, assigned=None):
    """One impression a user, every ten hours another user."""
    rng = np.random.default_rng(first)
    for user in range(first, first + users):
        name = experiment.assign(user) if assigned is None else assigned(user)
        clicked = rng.random() < rates[experiment.arms.index(name)]
        written.shown(user, name, user / 10, clicks=[(1, 0)] * clicked, experiment=experiment)


def test_a_better_arm_is_told_in_words_and_figures(written):
    fill_split(written, users=400, rates=(0.2, 0.6))
    report = written.analyze()
    by_metric = {found.metric: found for found in report.comparisons}
    found = by_metric["click_through"]
    raw, dual = arm(report, "raw"), arm(report, "dual_is")
    assert (found.baseline, found.arm, found.verdict, report.valid) == ("raw", "dual_is", "better", True)
    assert found.difference.value == pytest.approx(dual.click_through.value - raw.click_through.value)
    assert found.difference.low < found.difference.value < found.difference.high
    assert 0 < found.sequential.interval[0] < found.difference.value < found.sequential.interval[1]
    assert found.p_value < found.sequential.p_value < 0.05
    assert by_metric["reciprocal_rank"].verdict == "better"
    assert report.verdict.startswith("dual_is is better than raw (click-through ")
    assert str(report).startswith(report.verdict)


def test_a_worse_arm_is_told(written):
    fill_split(written, users=400, rates=(0.6, 0.2))
    report = written.analyze(metric="reciprocal_rank")
    assert [found.verdict for found in report.comparisons] == ["worse", "worse"]
    assert report.verdict.startswith("dual_is is worse than raw (reciprocal rank")


def test_a_verdict_stays_and_a_warning_says_if_later_users_do_not_bear_it_out(written):
    fill_split(written, users=150, rates=(0.1, 0.9))
    assert not written.analyze().warnings
    fill_split(written, users=180, first=150, rates=(0.9, 0.1))
    report = written.analyze()
    found = report.comparisons[0]
    assert found.verdict == "better"
    assert found.sequential.interval[0] < 0 < found.sequential.interval[1]
    assert any("click_through of dual_is was found better earlier" in text for text in report.warnings)


def test_without_a_difference_it_is_undecided(written):
    fill_split(written, users=100)
    report = written.analyze()
    assert report.comparisons[0].verdict == "undecided"
    assert "undecided so far" in report.verdict


def test_the_sequential_p_value_never_rises_and_its_history_is_what_was_said_at_the_time(written):
    fill_split(written, users=200, rates=(0.2, 0.6))
    whole = written.analyze().comparisons[0].sequential
    told = []
    for look in whole.history[::20]:
        then = written.analyze(until=look.at).comparisons[0].sequential
        assert then.p_value == pytest.approx(look.p_value)
        assert then.history[-1].users == look.users
        assert then.history[-1].value == pytest.approx(look.value)
        told.append(then.p_value)
    assert told == sorted(told, reverse=True)
    assert whole.history[-1].p_value == whole.p_value
    assert len(whole.history) == 100


def test_three_arms_are_compared_with_the_first_and_p_values_allow_for_that(written):
    three = Experiment("three", ("raw", "is", "dual_is"))
    fill_split(written, users=300, rates=(0.3, 0.3, 0.7), experiment=three)
    report = written.analyze()
    compared = [(found.baseline, found.arm) for found in report.comparisons if found.metric == "click_through"]
    assert compared == [("raw", "is"), ("raw", "dual_is")]
    only = written.analyze().comparisons[2]
    assert only.arm == "dual_is"
    assert only.verdict == "better"
    assert [found.verdict for found in report.comparisons if found.arm == "is"] == ["undecided"] * 2
    # by hand: of the users of two arms
    from dbnorm_vdb.experiments.sequential import arm_scores, log_wealth, p_values

    users = [user for user in range(300) if three.assign(user) != "is"]
    rng = np.random.default_rng(0)
    draws = rng.random(300)
    treated = np.array([three.assign(user) == "dual_is" for user in users])
    clicked = (draws[users] < np.where(treated, 0.7, 0.3)).astype(float)
    once = p_values(log_wealth(*arm_scores(clicked, treated, 0.5)))[-1]
    assert only.sequential.p_value == pytest.approx(2 * once)


def test_a_sample_ratio_mismatch_makes_the_report_invalid_loudly(written):
    fill_split(written, users=400, rates=(0.2, 0.6), assigned=lambda user: "raw" if user % 5 < 3 else "dual_is")
    report = written.analyze()
    (ratio,) = report.sample_ratios
    assert (ratio.mismatch, ratio.counts) == (True, {"raw": 240, "dual_is": 160})
    assert report.valid is False
    assert report.verdict.startswith("INVALID: sample ratio mismatch: users are raw 240 : dual_is 160")
    assert "is better" not in report.verdict


def test_after_a_change_of_weights_rates_are_of_those_who_came_under_the_more_common_ones(written):
    ramp = Experiment("hubs", ("raw", "dual_is"), weights=(9, 1))
    fill_split(written, users=100, rates=(0.9, 0.9), experiment=ramp)
    fill_split(written, users=300, first=100, rates=(0.1, 0.1))
    report = written.analyze()
    assert sum(found.users for found in report.arms) == 300
    assert [found.share for found in report.arms] == [0.5, 0.5]
    assert arm(report, "raw").click_through.value < 0.3, "not a mixture of two times"
    assert sum(report.sample_ratios[0].counts.values()) == 300
    assert report.comparisons[0].sequential.history[-1].users == 400
    assert any("leave out 100 of 400 users" in text for text in report.warnings)


def test_an_arm_of_weight_zero_is_not_compared_with(written):
    closed = Experiment("hubs", ("raw", "dual_is"), weights=(1, 0))
    fill_split(written, users=50, experiment=closed)
    report = written.analyze()
    assert arm(report, "dual_is").users == 0
    assert (report.comparisons[0].sequential.p_value, report.comparisons[0].sequential.history) == (1.0, [])
    assert report.valid


# --- interleaving --------------------------------------------------------------------------------------------------


def test_clicks_are_credited_to_the_team_and_impressions_to_the_user(written):
    a, b = "raw", "dual_is"
    written.interleaved("anna", [a, b, b, a], clicks=[1, 2, 0])  # two of b against one: b
    written.interleaved("anna", [a, b, b, a], 1, clicks=[0])  # a
    written.interleaved("anna", [b, a, a, b], 2, clicks=[0], first=b)  # b; anna prefers b
    written.interleaved("berta", [a, b], clicks=[0, 1])  # neither
    written.interleaved("berta", [a, b], 1, clicks=[0, 0])  # a
    written.interleaved("carla", [a, b], clicks=[0])
    written.interleaved("carla", [b, a], 1, clicks=[0], first=b)  # one each
    written.interleaved("dora", [a, b])
    written.interleaved("emil", [b, b], clicks=[1], first=None)
    found = written.analyze().interleaving
    assert (found.baseline, found.arm) == (a, b)
    assert (found.for_arm, found.for_baseline, found.users) == (2, 1, 5)
    assert found.share.value == pytest.approx(2 / 3)
    assert (found.impressions, found.clicks) == (9, 11)


def test_first_picks_are_counted_where_there_was_a_toss(written):
    for user, first in enumerate(["raw", "raw", "dual_is", None]):
        written.interleaved(user, ["raw", "dual_is"], first=first)
    report = written.analyze()
    (ratio,) = report.sample_ratios
    assert (ratio.what, ratio.counts) == ("first picks", {"raw": 2, "dual_is": 1})
    assert (report.arms, report.comparisons) == ([], [])


def test_a_preference_is_told_in_words_and_figures(written):
    for user in range(60):
        written.interleaved(user, ["raw", "dual_is"], user / 10, clicks=[int(user % 5 > 0)], first="raw")
    report = written.analyze()
    found = report.interleaving
    assert (found.for_arm, found.for_baseline, found.verdict) == (48, 12, "better")
    assert found.p_value == pytest.approx(2 * stats.binom.sf(47, 60, 0.5))
    assert found.p_value < found.sequential.p_value < 0.001
    assert 0.5 < found.sequential.interval[0] < 0.8 < found.sequential.interval[1] <= 1
    assert "INVALID: sample ratio mismatch: first picks" in report.verdict, "raw always picked first"
    assert report.valid is False


def test_a_preference_for_the_baseline_is_worse(written):
    for user in range(60):
        first = ("raw", "dual_is")[user % 2]
        written.interleaved(user, ["raw", "dual_is"], user / 10, clicks=[int(user % 5 == 0)], first=first)
    report = written.analyze()
    assert report.interleaving.verdict == "worse"
    assert report.interleaving.sequential.interval[1] < 0.5
    assert report.verdict.startswith("Interleaved, dual_is is worse than raw (12 of 60 users")


def test_an_experiment_may_be_split_and_interleaved_side_by_side(written):
    fill_split(written, users=50)
    for user in range(50):
        written.interleaved(user, ["raw", "dual_is"], user / 10, clicks=[0], first=("raw", "dual_is")[user % 2])
    report = written.analyze()
    assert sum(found.users for found in report.arms) == report.interleaving.users == 50
    assert [ratio.what for ratio in report.sample_ratios] == ["users", "first picks"]
    assert report.final_users == 100


def test_interleaving_several_pairs_under_one_name_is_refused(written):
    written.interleaved("anna", ["raw", "dual_is"])
    other = Experiment("hubs", ("raw", "is"))
    written.interleaved("anna", ["raw", "is"], 1, experiment=other)
    with pytest.raises(EventLogError, match="several pairs of arms"):
        written.analyze()


# --- which experiment ----------------------------------------------------------------------------------------------


def test_of_several_experiments_one_is_named(written):
    other = Experiment("other", ("raw", "is"))
    written.shown("anna", "raw", clicks=[(1, 0)])
    written.shown("anna", "is", clicks=[(1, 0), (2, 0)], experiment=other)
    with pytest.raises(EventLogError, match="'hubs', 'other'"):
        written.analyze()
    with pytest.raises(EventLogError, match="lacks the experiment 'third': it holds 'hubs', 'other'"):
        written.analyze(experiment="third")
    report = written.analyze(experiment="other")
    assert (report.experiment, arm(report, "is").clicks) == ("other", 2)
    assert report.tally.orphan_clicks == 0, "clicks of the other experiment are no orphans"


def test_a_log_of_clicks_alone_holds_no_experiment(written):
    written.click("i", 1)
    with pytest.raises(EventLogError, match="no impressions"):
        written.analyze()


def test_events_of_a_newer_format_make_the_report_invalid(written):
    fill_split(written, users=20)
    with (written.path / "000001.jsonl").open("a") as file:
        file.write('\n{"v":2,"event":"click"}\n')
    report = written.analyze()
    assert report.valid is False
    assert "1 events are of a newer format" in report.verdict


def test_unreadable_lines_are_counted_and_many_are_a_warning(written):
    fill_split(written, users=20)
    with (written.path / "000001.jsonl").open("a") as file:
        file.write("\nhello\n")
    report = written.analyze()
    assert report.unreadable_lines == 1
    assert any("lines of the log are unreadable" in text for text in report.warnings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": timedelta(0)}, "window"),
        ({"metric": "clicks"}, "metric must be one of click_through, reciprocal_rank"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"max_impressions": 0}, "max_impressions"),
        ({"until": datetime(2025, 1, 1)}, "time zone"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, message):
    with pytest.raises(InvalidParameterError, match=message):
        analyze(tmp_path / "nowhere", **settings)


def test_without_scipy_the_message_names_the_extra(written, monkeypatch):
    written.shown("anna", "raw")
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingDependencyError, match=r"dbnorm-vdb\[evaluation\]"):
        written.analyze()


# --- how it is shown -----------------------------------------------------------------------------------------------


def test_a_report_is_json_and_comes_back(written):
    fill_split(written, users=30)
    written.interleaved("anna", ["raw", "dual_is"])
    report = written.analyze()
    assert ExperimentReport.model_validate_json(report.model_dump_json()) == report


def test_a_report_is_shown_with_the_verdict_first_in_80_columns(written):
    hostile = Experiment("[red]x[/]", ("[bold]raw", "[/bold]"))
    fill_split(written, users=60, rates=(0.1, 0.9), experiment=hostile)
    written.interleaved("anna", hostile.arms, experiment=hostile, first=None)
    console = Console(width=80, record=True, file=StringIO())
    console.print(written.analyze())
    text = console.export_text()
    assert text.startswith("[/bold] is better than [bold]raw (click-through")
    for part in ("Arms", "[bold]raw", "Tests", "every look", "one look", "Sample ratio", "users count"):
        assert part in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
