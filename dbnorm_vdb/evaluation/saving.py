"""A comparison as files that other programs read: TREC runs and qrels, values by query, JSON."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dbnorm_vdb.errors import InvalidParameterError, InvalidRunError
from dbnorm_vdb.evaluation.judgements import Judgements
from dbnorm_vdb.evaluation.rankings import Ranking, Run

if TYPE_CHECKING:
    from dbnorm_vdb.evaluation.results import Comparison

JSON_NAME = "comparison.json"
QRELS_NAME = "qrels.trec"
VALUES_NAME = "per_query.csv"


def save(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Path]:
    """Write a comparison into a folder that is new or empty.

    - `comparison.json`: everything but the runs; `Comparison.load` reads it.
    - `<arm>.run`, one for each arm: TREC, in the order the arm returned. `trec_eval -c` and ranx find the same figures
      with them: `trec_eval` goes by score, in 32 bits, and orders equal scores by item, so scores that are equal there
      are written a little lower than the ones before, and scores that do not descend as ranks.
    - with judgements: `qrels.trec`, those of the queries compared, and `per_query.csv`, a row for each query and arm.

    Args:
        comparison: as `compare` returned it.
        folder: where to.

    Returns:
        The files written.

    Raises:
        InvalidParameterError: something is in the folder.
        InvalidRunError: the comparison was read from JSON and has no runs, or a key cannot be in a TREC file.
    """
    target = check_folder(folder)
    if not comparison.runs:
        raise InvalidRunError(
            "this comparison was read from JSON, which holds no runs; save the one compare() returned"
        )
    check_trec_keys(comparison.queries.keys, what="query")
    items = {item for run in comparison.runs.values() for ranking in run.values() for item in ranking.items}
    check_trec_keys([*items, *(item for grades in comparison.judgements.values() for item in grades)], what="item")
    target.mkdir(parents=True, exist_ok=True)
    written = [target / JSON_NAME]
    written[0].write_text(comparison.model_dump_json(indent=1), encoding="utf-8")
    for name, tag in _tags(comparison.runs).items():
        written.append(target / f"{tag}.run")
        _write_lines(written[-1], trec_run(comparison.runs[name], tag))
    if comparison.judgements:
        written += [target / QRELS_NAME, target / VALUES_NAME]
        _write_lines(written[-2], trec_qrels(comparison.judgements))
        _write_values(written[-1], comparison)
    return written


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, if it can be written into: it is new or empty."""
    target = Path(folder)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InvalidParameterError(f"{str(target)!r} exists and is no empty folder; name a new one")
    return target


def check_trec_keys(keys: Iterable[str], *, what: str) -> None:
    """Raise InvalidRunError for a key that is empty or has white space in it: a TREC file cannot hold it."""
    for key in keys:
        if key.split() != [key]:
            raise InvalidRunError(
                f"the {what} key {key!r} cannot be written to a TREC file, whose columns are parted by white space;"
                " use other keys, or keep the comparison as JSON (model_dump_json)"
            )


def trec_run(run: Run, tag: str) -> Iterable[str]:
    """The lines of a TREC run: query, Q0, item, rank, score, tag."""
    by_rank = any(not _descends(ranking) for ranking in run.values())
    for query, ranking in run.items():
        count = len(ranking.items)
        scores = (
            [float(count - rank) for rank in range(count)] if by_rank else strictly_descending(ranking.scores or [])
        )
        for rank, (item, score) in enumerate(zip(ranking.items, scores, strict=True), 1):
            yield f"{query} Q0 {item} {rank} {score:.9g} {tag}"


def strictly_descending(scores: Sequence[float]) -> list[float]:
    """The scores in 32 bits, those that are not below the one before them moved just below it."""
    values = np.array(scores, dtype=np.float32)
    for row in range(1, len(values)):
        if not values[row] < values[row - 1]:
            values[row] = np.nextafter(values[row - 1], np.float32(-np.inf))
    return [float(value) for value in values]


def _descends(ranking: Ranking) -> bool:
    """Whether there are scores, in the range of 32 bits, none above the one before it."""
    if ranking.scores is None:
        return False
    scores = np.array(ranking.scores)
    return bool(np.all(np.abs(scores) < 1e30) and np.all(np.diff(scores) <= 0))


def trec_qrels(judgements: Judgements) -> Iterable[str]:
    """The lines of TREC qrels: query, 0, item, grade."""
    for query, grades in judgements.items():
        for item, grade in grades.items():
            yield f"{query} 0 {item} {grade}"


def _tags(names: Iterable[str]) -> Mapping[str, str]:
    """A name for the file of each arm, of letters that every file system takes; all different."""
    tags: dict[str, str] = {}
    for name in names:
        tag = base = re.sub(r"[^\w.=-]+", "-", name).strip("-.") or "arm"
        number = 1
        while tag.lower() in (taken.lower() for taken in tags.values()):
            number += 1
            tag = f"{base}-{number}"
        tags[name] = tag
    return tags


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)


def _write_values(path: Path, comparison: Comparison) -> None:
    names = [measure.name for measure in comparison.measures]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "arm", *names])
        for number, row in enumerate(comparison.queries.judged):
            for arm in comparison.arms:
                values = (arm.values[name][number] for name in names)
                writer.writerow([comparison.queries.keys[row], arm.name, *values])
