"""The event log: what is written is read, whoever writes, is killed, or runs out of disk meanwhile."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest

from dbnorm_vdb import EventLogError, InvalidParameterError
from dbnorm_vdb.experiments import (
    Click,
    EventLog,
    Experiment,
    Impression,
    InterleavedImpression,
    LinesRead,
    read_events,
)
from dbnorm_vdb.experiments.events import MAX_LINE_BYTES

EXPERIMENT = Experiment("hubs", ("raw", "dual_is"), weights=(3, 1), salt="s")
NOON = datetime(2025, 1, 31, 12, tzinfo=timezone.utc)


def segments(folder):
    return sorted(path.name for path in folder.iterdir())


def clicked_items(folder):
    return [event.item for event in read_events(folder)]


def test_what_is_written_is_read(tmp_path):
    shown = EXPERIMENT.interleave(7, [1, 2], [2, 3], impression="second")
    with EventLog(tmp_path / "new" / "log") as log:
        first = log.impression(EXPERIMENT, "anna", "raw", [17, "x", UUID(int=1)], at=NOON)
        assert log.interleaved(EXPERIMENT, shown, at=NOON) == "second"
        log.click(first, 17, at=NOON)
    assert list(read_events(tmp_path / "new" / "log")) == [
        Impression(
            at=NOON,
            experiment="hubs",
            id=first,
            key="anna",
            arms=("raw", "dual_is"),
            weights=(0.75, 0.25),
            arm="raw",
            items=("17", "x", str(UUID(int=1))),
        ),
        InterleavedImpression(
            at=NOON,
            experiment="hubs",
            id="second",
            key="7",
            arms=("raw", "dual_is"),
            items=shown.ids,
            teams=shown.teams,
            first=shown.first,
        ),
        Click(at=NOON, impression=first, item="17"),
    ]
    assert log.dropped_count == 0


def test_events_are_json_lines_with_a_version_and_a_time(tmp_path):
    before = datetime.now(timezone.utc)
    with EventLog(tmp_path) as log:
        log.click("i", "ü\n")
    assert segments(tmp_path) == ["000001.jsonl"]
    (line,) = [line for line in (tmp_path / "000001.jsonl").read_text().splitlines() if line]
    document = json.loads(line)
    assert (document["v"], document["event"], document["item"]) == (1, "click", "ü\n")
    assert before <= datetime.fromisoformat(document["at"].replace("Z", "+00:00")) <= datetime.now(timezone.utc)


def test_every_impression_has_an_id_of_its_own(tmp_path):
    with EventLog(tmp_path) as log:
        ids = {log.impression(EXPERIMENT, "anna", "raw", []) for _ in range(100)}
    assert len(ids) == 100
    assert all(len(made) == 32 for made in ids)


def test_keys_can_be_stored_as_keyed_hashes(tmp_path):
    with EventLog(tmp_path, key_secret="hush") as log:
        for key in ("anna@example.org", "anna@example.org", "berta"):
            log.impression(EXPERIMENT, key, "raw", [])
        log.interleaved(EXPERIMENT, EXPERIMENT.interleave("berta", [1], [2]))
    keys = [event.key for event in read_events(tmp_path)]
    assert (keys[0], keys[2]) == (keys[1], keys[3])
    assert keys[0] != keys[2]
    assert all(len(key) == 32 for key in keys)
    assert "anna" not in (tmp_path / "000001.jsonl").read_text()
    with EventLog(tmp_path / "other", key_secret="another") as log:
        log.impression(EXPERIMENT, "berta", "raw", [])
    assert next(read_events(tmp_path / "other")).key not in keys


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda log: log.impression(EXPERIMENT, "", "raw", []), "key"),
        (lambda log: log.impression(EXPERIMENT, "anna", "is", []), "the arm is none of the arms"),
        (lambda log: log.impression(EXPERIMENT, "anna", "raw", [1.5]), "item id must be a string"),
        (lambda log: log.impression(EXPERIMENT, "anna", "raw", range(1001)), "at most 1000 items"),
        (lambda log: log.impression(EXPERIMENT, "anna", "raw", [], impression=""), "impression"),
        (lambda log: log.impression(EXPERIMENT, "anna", "raw", [], at=datetime(2025, 1, 1)), "timezone"),
        (lambda log: log.impression(EXPERIMENT, "anna", "raw", ["€" * 1024] * 1000), "bytes"),
        (lambda log: log.click("i", "x" * 1025), "item id must have 1 to 1024 characters"),
        (lambda log: log.click("\ud800", "x"), "Unicode"),
        (lambda log: log.click(None, "x"), "got None"),
        (
            lambda log: log.interleaved(Experiment("other", ("a", "b")), EXPERIMENT.interleave("anna", [1], [2])),
            "a team is none of the arms",
        ),
        (
            lambda log: log.interleaved(Experiment("x", ("a", "b", "c")), EXPERIMENT.interleave("anna", [1], [2])),
            "two arms",
        ),
    ],
)
def test_what_is_no_event_is_refused_and_not_written(tmp_path, call, message):
    with EventLog(tmp_path) as log, pytest.raises(InvalidParameterError, match=message):
        call(log)
    assert segments(tmp_path) == []
    assert log.dropped_count == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"max_bytes": 0},
        {"rotate_every": timedelta(milliseconds=1)},
        {"sync_every": -1},
        {"sync_every": float("nan")},
        {"key_secret": ""},
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings):
    with pytest.raises(InvalidParameterError, match=next(iter(settings))):
        EventLog(tmp_path / "log", **settings)
    assert not (tmp_path / "log").exists()


# --- rotation ------------------------------------------------------------------------------------------------------


def test_a_segment_of_full_size_gets_no_more_events(tmp_path):
    with EventLog(tmp_path, max_bytes=1000) as log:
        for item in range(100):
            log.click("i", item)
    names = segments(tmp_path)
    assert len(names) > 5
    sizes = [(tmp_path / name).stat().st_size for name in names]
    assert all(1000 <= size < 1000 + 200 for size in sizes[:-1])
    assert clicked_items(tmp_path) == [str(item) for item in range(100)]


def test_another_writer_goes_on_with_the_newest_segment(tmp_path):
    for item in range(40):
        with EventLog(tmp_path, max_bytes=1000) as log:
            log.click("i", item)
    assert len(segments(tmp_path)) == 4
    assert clicked_items(tmp_path) == [str(item) for item in range(40)]


def test_two_writers_of_one_log_rotate_together(tmp_path):
    with EventLog(tmp_path, max_bytes=1000) as one, EventLog(tmp_path, max_bytes=1000) as other:
        for item in range(60):
            (one, other)[item % 2].click("i", item)
    assert all((tmp_path / name).stat().st_size < 1200 for name in segments(tmp_path))
    assert clicked_items(tmp_path) == [str(item) for item in range(60)]


def test_every_period_has_segments_of_its_own(tmp_path, monkeypatch):
    now = [NOON.timestamp()]
    monkeypatch.setattr("dbnorm_vdb.experiments.segments.time.time", lambda: now[0])
    with EventLog(tmp_path, rotate_every=timedelta(hours=1), max_bytes=150) as log:
        for item, minutes in enumerate((0, 1, 59.9, 60, 200)):
            now[0] = NOON.timestamp() + 60 * minutes
            log.click("i", item)
    assert segments(tmp_path) == [
        "20250131T120000Z-000001.jsonl",
        "20250131T120000Z-000002.jsonl",
        "20250131T130000Z-000001.jsonl",
        "20250131T150000Z-000001.jsonl",
    ]
    assert clicked_items(tmp_path) == ["0", "1", "2", "3", "4"]


def test_segments_may_be_deleted_while_the_log_is_open(tmp_path):
    with EventLog(tmp_path) as log:
        log.click("i", "deleted")
        (tmp_path / "000001.jsonl").unlink()
        log.click("i", "kept")
    assert clicked_items(tmp_path) == ["kept"]


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_an_unfinished_line_spoils_no_other(tmp_path):
    with EventLog(tmp_path) as log:
        log.click("i", "whole")
    file = tmp_path / "000001.jsonl"
    whole = file.read_bytes()
    for torn in (b"\n{", whole[:-1], whole[: len(whole) // 2], b"\0\0\0"):
        file.write_bytes(whole + torn)
        with EventLog(tmp_path) as log:
            log.click("i", "next")
        lines = LinesRead()
        items = [event.item for event in read_events(tmp_path, lines)]
        complete = torn == whole[:-1]
        assert items == ["whole"] * (1 + complete) + ["next"]
        assert lines == LinesRead(events=len(items), unreadable=1 - complete)


def test_a_full_disk_drops_events_with_one_warning_and_the_log_recovers(tmp_path, caplog):
    segment = tmp_path / "000001.jsonl"
    segment.symlink_to("/dev/full")
    with EventLog(tmp_path) as log, caplog.at_level(logging.WARNING, logger="dbnorm_vdb"):
        made = log.impression(EXPERIMENT, "anna", "raw", [1])
        log.click(made, 1)
        log.click(made, 1)
        assert log.dropped_count == 3
        assert len(caplog.records) == 1
        assert "No space left on device" in caplog.text
        segment.unlink()
        log.click(made, "after")
    assert log.dropped_count == 3
    assert clicked_items(tmp_path) == ["after"]


def test_a_folder_that_is_gone_drops_events(tmp_path, caplog):
    with EventLog(tmp_path / "log") as log:
        (tmp_path / "log").rmdir()
        log.click("i", 1)
    assert log.dropped_count == 1
    assert "cannot write" in caplog.text


LIMITED = """
import resource, signal, sys
from dbnorm_vdb.experiments import EventLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
log = EventLog(sys.argv[1])
for item in range(20):
    log.click("i", item)
print(log.dropped_count)
"""


def test_an_event_of_which_only_a_part_fits_is_dropped_and_counted(tmp_path):
    told = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert (tmp_path / "000001.jsonl").stat().st_size == 1000, "the last event was cut"
    lines = LinesRead()
    read = len(list(read_events(tmp_path, lines)))
    assert 0 < read < 20
    assert int(told.stdout) == 20 - read
    assert lines.unreadable == 1
    assert told.stderr.count("cannot write") == 1
    with EventLog(tmp_path) as log:
        log.click("i", "after")
    assert clicked_items(tmp_path) == [*(str(item) for item in range(read)), "after"]


@pytest.mark.parametrize(("sync_every", "least", "most"), [(None, 0, 0), (0, 5, 9), (3600, 2, 3)])
def test_syncing_is_as_often_as_was_asked_for(tmp_path, monkeypatch, sync_every, least, most):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr("os.fsync", lambda descriptor: (synced.append(descriptor), fsync(descriptor)))
    with EventLog(tmp_path, sync_every=sync_every) as log:
        for item in range(5):
            log.click("i", item)
    assert least <= len(synced) <= most


def test_threads_may_share_a_log(tmp_path):
    with EventLog(tmp_path, max_bytes=5000) as log:

        def write(thread):
            for number in range(200):
                log.click("i", f"{thread}-{number}")

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    items = clicked_items(tmp_path)
    assert sorted(items) == sorted(f"{thread}-{number}" for thread in range(4) for number in range(200))


WRITER = """
import sys
from dbnorm_vdb.experiments import EventLog, Experiment
experiment = Experiment("hubs", ("raw", "dual_is"))
log = EventLog(sys.argv[1], max_bytes=20_000)
for number in range(int(sys.argv[3])):
    log.impression(experiment, f"{sys.argv[2]}-{number}", "raw", range(number % 300))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_processes_may_share_a_log_and_be_killed(tmp_path):
    """Every event whose call has returned is there once, however the writers end, and nothing is there twice."""

    def start(name, count):
        command = [sys.executable, "-c", WRITER, str(tmp_path), name, str(count)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ""})

    ending = [start(f"ending{number}", 150) for number in range(2)]
    killed = [start(f"killed{number}", 1_000_000) for number in range(2)]
    written = set()
    for process, name in zip(killed, ("killed0", "killed1"), strict=True):
        for line in process.stdout:
            written.add(f"{name}-{int(line)}")
            if int(line) == 150:
                process.send_signal(signal.SIGKILL)
                break
        rest = process.stdout.read()
        written |= {f"{name}-{int(line)}" for line in rest.splitlines(keepends=True) if line.endswith("\n")}
        assert process.wait(60) == -signal.SIGKILL
        process.stdout.close()
    for process, name in zip(ending, ("ending0", "ending1"), strict=True):
        written |= {f"{name}-{int(line)}" for line in process.communicate(timeout=60)[0].split()}
        assert process.returncode == 0
    lines = LinesRead()
    keys = [event.key for event in read_events(tmp_path, lines)]
    assert len(keys) == len(set(keys)), "written twice"
    assert written <= set(keys), "lost"
    assert len(set(keys) - written) <= 2, "of each killed writer, one event whose call had not returned"
    assert lines.unreadable <= 2
    assert len(segments(tmp_path)) > 5


# --- reading -------------------------------------------------------------------------------------------------------

CLICK = '{"v":1,"at":"2025-01-31T12:00:00Z","event":"click","impression":"i","item":"1"}'
SHOWN = (
    '{"v":1,"at":"2025-01-31T12:00:00Z","event":"impression","experiment":"hubs","id":"i","key":"anna",'
    '"arms":["a","b"],"weights":[0.5,0.5],"arm":"a","items":["1"]}'
)


@pytest.mark.parametrize(
    ("line", "unreadable"),
    [
        ("\n\n \n", 0),
        ("{", 1),
        ("[" * 100_000, 1),
        ("null", 1),
        ("\xff\xfe", 1),
        (CLICK[:-1], 1),
        (CLICK.replace('"v":1', '"v":"1"'), 1),
        (CLICK.replace('"event":"click"', '"event":"drop table"'), 1),
        (CLICK.replace("2025-01-31T12:00:00Z", "yesterday"), 1),
        (CLICK.replace("00Z", "00"), 1),  # a time without a zone
        (CLICK.replace('"item":"1"', f'"item":"{"x" * 2000}"'), 1),
        (CLICK.replace('"item":"1"', '"item":{"$ne":1}'), 1),
        (CLICK + " " * MAX_LINE_BYTES, 1),
        ("x" * (3 * MAX_LINE_BYTES), 1),
        (SHOWN.replace('"arm":"a"', '"arm":"c"'), 1),
        (SHOWN.replace("[0.5,0.5]", "[0.5,0.6]"), 1),
        (SHOWN.replace("[0.5,0.5]", "[0.5,NaN]"), 1),
        (SHOWN.replace("[0.5,0.5]", "[-1,2]"), 1),
        (SHOWN.replace("[0.5,0.5]", "[1]"), 1),
        (SHOWN.replace('["a","b"]', '["a","a"]'), 1),
        (SHOWN.replace('["1"]', json.dumps(["1"] * 1001)), 1),
    ],
)
def test_what_is_no_event_is_skipped_and_counted(tmp_path, line, unreadable):
    (tmp_path / "000001.jsonl").write_bytes(f"{CLICK}\n".encode() + line.encode("latin-1") + f"\n{SHOWN}\n".encode())
    lines = LinesRead()
    assert [event.event for event in read_events(tmp_path, lines)] == ["click", "impression"]
    assert lines == LinesRead(events=2, unreadable=unreadable)


def test_events_of_a_newer_format_are_counted_apart(tmp_path):
    newer = CLICK.replace('"v":1', '"v":2')
    (tmp_path / "000001.jsonl").write_text(f"{newer}\n{CLICK}\n{newer.replace('item', 'thing')}")
    lines = LinesRead()
    assert len(list(read_events(tmp_path, lines))) == 1
    assert lines == LinesRead(events=1, newer=2)


def test_what_a_newer_minor_version_adds_is_ignored(tmp_path):
    (tmp_path / "000001.jsonl").write_text(CLICK.replace('"v":1', '"v":1,"colour":"red"'))
    assert clicked_items(tmp_path) == ["1"]


def test_one_file_can_be_read_and_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "000001.jsonl").write_text(CLICK)
    (tmp_path / "notes.jsonl").write_text("nothing")
    assert clicked_items(tmp_path) == clicked_items(tmp_path / "000001.jsonl") == ["1"]


def test_an_event_as_long_as_it_may_be_is_read(tmp_path):
    items = ["x" * 1024] * 1000
    with EventLog(tmp_path) as log:
        log.impression(EXPERIMENT, "anna", "raw", items)
    assert next(read_events(tmp_path)).items == tuple(items)
    assert (tmp_path / "000001.jsonl").stat().st_size < MAX_LINE_BYTES


def test_where_there_is_no_log_the_error_says_so(tmp_path):
    with pytest.raises(EventLogError, match="does not exist"):
        read_events(tmp_path / "nowhere")
    with pytest.raises(EventLogError, match="holds no event log"):
        read_events(tmp_path)
