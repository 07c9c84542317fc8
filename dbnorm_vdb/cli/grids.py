"""How the settings that were tried are shown: each in a table, and the objective over the betas as heat maps."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from dbnorm_vdb.methods import Method
from dbnorm_vdb.tuning import DEFAULT_MEASURES, Trial, TuneResult

_FAMILIES = (
    ("is and dual_is", "query beta", (Method.IS, Method.DUAL_IS)),
    ("dis and dual_dis", "query beta", (Method.DIS, Method.DUAL_DIS)),
    ("sinkhorn", "query beta", (Method.SINKHORN,)),
    ("nnn", "alpha", (Method.NNN,)),
)
"""What shares a map: at a gallery beta of 0, `dual_is` is `is`."""

_HUBNESS = ("robin_hood", "k_skewness", "hub_occurrence", "antihub_occurrence")

# Blue is better than raw and orange worse: they differ for the colour-blind too, and figures stand in them.
_BETTER, _WORSE, _SAME = (40, 110, 190), (205, 105, 20), (238, 238, 238)
_DARK = 0.55


def grid_table(result: TuneResult) -> Table:
    """A line for each setting tried, with all figures; the one to take is marked."""
    names = list(dict.fromkeys([result.objective, *(DEFAULT_MEASURES if result.validated else _HUBNESS)]))
    table = Table(title=_title(result, f"{len(result.trials)} settings"), title_justify="left", title_style="bold")
    table.add_column("setting")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("gain", justify="right")
    table.add_column("")
    for trial in result.trials:
        figures = [f"{trial.figures[name]:.4f}" for name in names]
        marks = [
            word
            for word, marked in (("take", result.best), ("highest", result.highest))
            if marked.setting == trial.setting
        ]
        style = "bold" if "take" in marks else ""
        gain = "" if trial is result.trials[0] else f"{result.gain(trial):+.4f}"
        table.add_row(trial.setting.in_words(), *figures, gain, ", ".join(marks), style=style)
    return table


def heat_maps(result: TuneResult) -> Iterator[Table]:
    """The objective by query beta (down) and gallery beta (across), coloured by the gain over raw."""
    largest = max((abs(result.gain(trial)) for trial in result.trials), default=0.0)
    for family, down, methods in _FAMILIES:
        trials = [trial for trial in result.trials if trial.setting.method in methods]
        if trials:
            yield _heat_map(result, trials, _title(result, family), down, largest)


def _heat_map(result: TuneResult, trials: list[Trial], title: str, down: str, largest: float) -> Table:
    cells = {_place(trial): trial for trial in trials}
    rows, columns = (sorted({place[axis] for place in cells}) for axis in (0, 1))
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=0)
    table.add_column(Text(f"{down} "), justify="right")
    for beta in columns:
        table.add_column("" if len(columns) == 1 else f"gallery {beta:g}", justify="center")
    for row in rows:
        table.add_row(f"{row:g} ", *(_cell(result, cells.get((row, beta)), largest) for beta in columns))
    return table


def _place(trial: Trial) -> tuple[float, float]:
    setting = trial.setting
    if setting.method is Method.NNN:
        return setting.nnn_alpha or 0.0, 0.0
    return setting.query_beta or 0.0, setting.gallery_beta or 0.0


def _cell(result: TuneResult, trial: Trial | None, largest: float) -> Text:
    if trial is None:
        return Text("")
    mark = "*" if trial.setting == result.best.setting else " "
    share = result.gain(trial) / largest if largest else 0.0
    end = _BETTER if share > 0 else _WORSE
    mixed = [round(same + abs(share) * (to - same)) for same, to in zip(_SAME, end, strict=True)]
    ink = "white" if abs(share) > _DARK else "black"
    return Text(f"  {trial.figures[result.objective]:.4f}{mark} ", style=f"{ink} on rgb({','.join(map(str, mixed))})")


def _title(result: TuneResult, what: str) -> str:
    if result.validated:
        return f"{what}: {result.objective}, raw {result.raw.figures[result.objective]:.4f}"
    return (
        f"{what}: UNVALIDATED, {result.objective} (hubness: less is better), raw"
        f" {result.raw.figures[result.objective]:.4f}"
    )
