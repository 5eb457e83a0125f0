"""``python -m parity_tests.twins twin`` and ``seeds``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet_from_scratch.runs.options import Options
from benchmarks.reports import screen
from benchmarks.reports.screen import console, render
from benchmarks.reports.tables import Table
from parity_tests.twins import tables
from parity_tests.twins.results import Apart, Twins, save
from parity_tests.twins.training import apart, together

FAILED = 1

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Train scratch and torch, and compare.")
Json = Annotated[Path, typer.Option("--json", help="The folder for the results.")]
TRAINER = {"allow_extra_args": True, "ignore_unknown_options": True}  # the next two commands take the trainer's flags


@app.command(context_settings=TRAINER)
def twin(ctx: typer.Context, json: Json = Path("runs/twin.json")) -> None:
    """Train scratch and torch in step, from the same weights; takes the trainer's flags (--data, --variant, --max-steps …)."""
    with screen.steps() as done:
        result = together(Options.parse("scratch", ctx.args), done)
    keep(result, json, tables.layers(result), tables.steps(result))


@app.command(context_settings=TRAINER)
def seeds(
    ctx: typer.Context,
    count: Annotated[int, typer.Option(min=2, help="Runs of each side.")] = 3,
    json: Json = Path("runs/seeds.json"),
) -> None:
    """Train both sides from several seeds, compare accuracies with their spread; takes the trainer's flags (--data …)."""
    result = apart(Options.parse("scratch", ctx.args), count)
    keep(result, json, tables.spread(result))


def keep(result: Twins | Apart, json: Path, *shown: Table) -> None:
    """Write and show a result; the exit code is 1 if rounding, or the spread of seeds, does not explain something."""
    save(result, json)
    for table in shown:
        render(table)
    console.print(f"\nwrote {json}")
    for failure in result.failures():
        console.print(f"FAILED {failure}", markup=False, style="red")
    if result.failures():
        raise typer.Exit(FAILED)


if __name__ == "__main__":
    app(prog_name="python -m parity_tests.twins")
