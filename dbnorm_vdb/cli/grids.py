"""How the settings that were tried are shown: each in a table, and the objective over the betas as heat maps."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dbnorm_vdb.methods import Method
from dbnorm_vdb.tuning import Trial, TuneResult

_FAMILIES = (
    ("is (gallery beta 0) and dual_is", "query beta", (Method.IS, Method.DUAL_IS)),
    ("dis (gallery beta 0) and dual_dis", "query beta", (Method.DIS, Method.DUAL_DIS)),
    ("sinkhorn", "query beta", (Method.SINKHORN,)),
    ("nnn", "alpha", (Method.NNN,)),
)
"""What shares a map: at a gallery beta of 0, `dual_is` is `is`."""

_MEASURES = ("R@1", "R@5", "R@10")
_HUBNESS = ("k_skewness", "antihub_occurrence")

# Blue is better than raw and orange worse: they differ for the colour-blind too, and figures stand in them.
_BETTER, _WORSE, _SAME = (40, 110, 190), (205, 105, 20), (238, 238, 238)
_DARK = 0.55


def grid_table(result: TuneResult) -> Table:
    """A line for each setting tried, with the figures that fit into 80 columns; the one to take is marked."""
    names = list(dict.fromkeys([result.objective, *(_MEASURES if result.validated else _HUBNESS)]))
    title = _title(result, f"{len(result.trials)} settings, * the one to take")
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    headings = (name.replace("_", "\n") for name in names)
    for heading in ("query\nbeta", "gallery\nbeta", *headings, "gain", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for trial in result.trials:
        setting, take = trial.setting, trial.setting == result.best.setting
        method = setting.method.value
        table.add_row(
            method if setting.nnn_alpha is None else f"{method}, alpha {setting.nnn_alpha:g}",
            *("" if beta is None else f"{beta:g}" for beta in (setting.query_beta, setting.gallery_beta)),
            *(f"{trial.figures[name]:.4f}" for name in names),
            "" if setting.method is Method.RAW else f"{result.gain(trial):+.4f}",
            "*" if take else "",
            style="bold" if take else "",
        )
    return table


def heat_maps(result: TuneResult) -> Iterator[Group]:
    """The objective by query beta (down) and gallery beta (across), coloured by the gain over raw."""
    largest = max((abs(result.gain(trial)) for trial in result.trials), default=0.0)
    for family, down, methods in _FAMILIES:
        trials = [trial for trial in result.trials if trial.setting.method in methods]
        if trials:
            yield Group(Text(_title(result, family), style="bold"), _heat_map(result, trials, down, largest))


def _heat_map(result: TuneResult, trials: list[Trial], down: str, largest: float) -> Table:
    cells = {_place(trial): trial for trial in trials}
    rows, columns = (sorted({place[axis] for place in cells}) for axis in (0, 1))
    across = "" if columns == [0.0] else " \\ gallery beta"
    table = Table(box=None, padding=0)
    table.add_column(f"{down}{across} ", justify="right")
    for beta in columns:
        table.add_column(f"{beta:g}" if across else "", justify="center")
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
    return Text(f" {trial.figures[result.objective]:.4f}{mark}", style=f"{ink} on rgb({','.join(map(str, mixed))})")


def _title(result: TuneResult, what: str) -> str:
    raw = result.raw.figures[result.objective]
    if result.validated:
        return f"{what}: {result.objective}, raw {raw:.4f}"
    return f"{what}: UNVALIDATED, {result.objective} (hubness: less is better), raw {raw:.4f}"
