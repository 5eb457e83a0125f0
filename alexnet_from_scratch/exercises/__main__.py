"""``python -m alexnet_from_scratch.exercises max_pool2d`` writes the file to fill in, and afterwards checks it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from alexnet_from_scratch.exercises.answers import Function, WrongAnswerError, load
from alexnet_from_scratch.exercises.drawing import draw, side_by_side
from alexnet_from_scratch.exercises.judging import EDGES, MATHEMATICS, Stage, first_look, several_calls, smallest
from alexnet_from_scratch.exercises.mistakes import name_of
from alexnet_from_scratch.exercises.stub import PACKAGES, command, page_of, solution, stub
from alexnet_from_scratch.exercises.table import EXERCISES
from alexnet_from_scratch.runs.files import write_bytes
from alexnet_from_scratch.runs.screen import failing_plainly, reason
from alexnet_from_scratch.text import CommandLine, shown

CASES = 150  # of each kind; together more than the parity suite's default
COMPARED = 100  # cases on which the reader's function is compared with known mistakes


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Write or check an exercise: 0 if it is solved, 1 if not yet."""
    parser = CommandLine("python -m alexnet_from_scratch.exercises", "Write a backward pass, and have it checked.")
    parser.add_argument("operation", nargs="?", choices=EXERCISES, help="which exercise; without it, list them in order")
    parser.add_argument("--folder", type=Path, default=Path("exercises"), help="where the files to fill in are (%(default)s)")
    parser.add_argument("--cases", type=int, default=CASES, metavar="N", help="how many inputs of each kind to try (%(default)s)")
    options = parser.parse_args(arguments)
    if options.cases < 1:
        parser.error(f"argument --cases: must be at least 1, got {options.cases}")
    console = console or Console(highlight=False)
    if options.operation is None:
        console.print(_overview(options.folder))
        return 0
    path = options.folder / f"{options.operation}.py"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, stub(options.operation).encode())
        except OSError as error:
            what = f"--folder {options.folder} must be a folder that can be written to, got {reason(error)}"
            raise OSError(what) from error
        console.print(f"Written: {shown(path)}", markup=False, soft_wrap=True)
        console.print(
            f"Fill in [bold]{solution(options.operation).__name__}[/] at the end of that file, then run this command again.\n"
        )
    try:
        if judge(options.operation, load(path, solution(options.operation).__name__), options.cases, console):
            return 0
    except WrongAnswerError as error:
        console.print(shown(error, lines=True), style="bold red", markup=False)
    except KeyboardInterrupt:
        console.print("Stopped before an answer was found.")
        return 1
    way = f"How to solve it: read {page_of(options.operation)}. To begin again, delete {shown(path)}"
    console.print(way, markup=False, soft_wrap=True)
    return 1


def judge(operation: str, yours: Function, cases: int, console: Console) -> bool:
    """Print what is right and what is wrong with the reader's function; return whether its mathematics is right.

    Raises:
        WrongAnswerError: the function raises an error on the first example, or its results have another form than they must.
    """
    failure = first_look(operation, yours, [])
    if failure:
        console.print(draw(operation, failure))
        return False
    failure = smallest(operation, yours, MATHEMATICS, cases)
    if failure:
        console.print(draw(operation, failure))
        mistake = name_of(operation, several_calls(operation, yours, COMPARED))
        if mistake:
            console.print(f"A known mistake gives the same: {mistake}.\n", style="bold", markup=False)
        console.print("No smaller input was found that shows it.")
        return False
    console.print(f"[green]✓[/] {MATHEMATICS.title}")
    different = [stage for stage in EDGES if not _as_torch_has_it(operation, yours, stage, cases, console)]
    asked = EXERCISES[operation].asked
    console.print(f"\n[bold green]Right:[/] torch and the definition agree with your {asked} of {operation}.")
    if different:
        kinds = " and ".join(stage.title for stage in different)
        console.print(
            f"At an edge ({kinds}) your function differs from torch. Mathematics does not decide such cases. The page named "
            "above says what torch does, and why."
        )
    console.print(side_by_side(operation, yours))
    console.print(f"How scratch makes it fast: read {page_of(operation)}.")
    later = list(EXERCISES)[list(EXERCISES).index(operation) + 1 :]
    console.print(f"Next: {command(later[0])}" if later else "That was the last exercise.")
    return True


def _as_torch_has_it(operation: str, yours: Function, stage: Stage, cases: int, console: Console) -> bool:
    """Whether the function does what torch does at this edge; if not, print where it differs, and the line that explains it."""
    failure = smallest(operation, yours, stage, cases)
    if failure is None:
        console.print(f"[green]✓[/] {stage.title}")
        return True
    console.print(f"[yellow]≠[/] {stage.title}: differs from torch. Why: {explained(operation, stage)}\n")
    console.print(draw(operation, failure))
    return False


def explained(operation: str, stage: Stage) -> str:
    """Where the operation's page explains the edge, with the line if this is a clone."""
    name = page_of(operation)
    page = PACKAGES / name
    lines = page.read_text(encoding="utf-8").splitlines() if page.exists() else []
    where = [i for i, line in enumerate(lines, 1) if line.startswith(f"- **{stage.mark}.**")]
    return f"{name}:{where[0]}, {stage.mark}" if where else f"{name}, At the edges, {stage.mark}"


def _overview(folder: Path) -> str:
    lines = [f"  {operation:<22}{'begun' if (folder / f'{operation}.py').exists() else ''}" for operation in EXERCISES]
    return "\n".join([f"Exercises in order. Begin or check one with  {command('…')}", *lines])


if __name__ == "__main__":
    with failing_plainly():
        sys.exit(main())
