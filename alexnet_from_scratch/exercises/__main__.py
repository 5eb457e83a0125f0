"""``python -m alexnet_from_scratch.exercises max_pool2d`` writes the file to fill in, and afterwards checks it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from alexnet_from_scratch.exercises.check import STAGES, WrongAnswerError, load, smallest
from alexnet_from_scratch.exercises.drawing import draw
from alexnet_from_scratch.exercises.stub import command, page_of, solution, source_of, stub
from alexnet_from_scratch.exercises.table import EXERCISES
from alexnet_from_scratch.runs.screen import failing_plainly
from alexnet_from_scratch.text import CommandLine, shown

CASES = 150  # of each kind; together as many as the parity suite's default


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Write or check an exercise: 0 if it is solved, 1 if not yet."""
    parser = CommandLine("python -m alexnet_from_scratch.exercises", "Write a backward pass, and have it checked.")
    parser.add_argument("operation", nargs="?", choices=EXERCISES, help="which one, in this order; without it, list them")
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
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stub(options.operation), encoding="utf-8")
        console.print(f"Written: {shown(path)}", markup=False, soft_wrap=True)
        console.print(f"Fill in [bold]{solution(options.operation).__name__}[/] at its end, then run this again.\n")
    return check(options.operation, path, options.cases, console)


def check(operation: str, path: Path, cases: int, console: Console) -> int:
    """Run the file's backward pass on increasingly difficult input, and print the result."""
    try:
        yours = load(path, solution(operation).__name__)
        for stage in STAGES:
            failure = smallest(operation, yours, stage, cases)
            if failure:
                console.print(draw(operation, failure))
                console.print(f"\nNo smaller input was found that shows it, among {stage.title}.")
                way = f"The way there: {page_of(operation)}, Backward. To begin anew, delete {shown(path)}"
                console.print(way, markup=False, soft_wrap=True)
                return 1
            console.print(f"[green]✓[/] {stage.title}")
    except WrongAnswerError as error:
        console.print(shown(error, lines=True), style="bold red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped before an answer was found.")
        return 1
    _, line = inspect.getsourcelines(solution(operation))
    console.print(f"\n[bold green]Right:[/] torch and the definition agree with your backward pass of {operation}.")
    console.print(f"The shipped one is in {source_of(operation)}:{line}; what makes it fast is in {page_of(operation)}.")
    later = list(EXERCISES)[list(EXERCISES).index(operation) + 1 :]
    console.print(f"Next: {command(later[0])}" if later else "That was the last exercise.")
    return 0


def _overview(folder: Path) -> str:
    lines = [f"  {operation:<22}{'begun' if (folder / f'{operation}.py').exists() else ''}" for operation in EXERCISES]
    return "\n".join([f"Exercises in order, each with  {command('…')}", *lines])


if __name__ == "__main__":
    with failing_plainly():
        sys.exit(main())
