"""The answer of a run, in a few plain lines: is it right, can it be believed, which side is faster."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import stats
from benchmarks.measure.stats import Ratio
from benchmarks.reports.results import Report, Row
from benchmarks.reports.tables import LAYERS, fastest, milliseconds, ratio_text

STEP, INFERENCE = "one_tower step", "one_tower inference"


def lines(report: Report) -> list[str]:
    """The verdict, line by line; the last one is the answer in a sentence."""
    return [*_checks(report), *_figures(report)]


def _checks(report: Report) -> Iterator[str]:
    failures, measured = report.failures(), [row for row in report.rows if row.rounds]
    if failures:
        yield f"Verified: NO. These results are wrong: {'; '.join(failures)}"
    else:
        yield f"Verified: yes. In all {len(measured)} rows both sides agreed with a float64 reference before they were timed."
    for row in report.rows:
        for side, why in row.absent.items():
            yield f"Left out: {side} on {row.case}: {why}"
    reason = report.distrust()
    if not reason:
        yield (
            "Trusted: yes. The same library in two processes came out equal, so differences between scratch and torch are real "
            "unless a row says otherwise."
        )
        return
    yield f"Trusted: no: {reason}."
    yield (
        f"  What that means: believe factors, not percents. A row that is within {report.noise():.0%} of 1 is marked as noise. "
        "For exact figures run again with nothing else running."
    )


def _figures(report: Report) -> Iterator[str]:
    found = {row.case: row for row in report.rows if row.rounds}
    noise = report.noise()
    if step := found.get(STEP):
        for name, torch in (("eager torch", "torch eager"), ("torch's best", step.best_torch("step"))):
            if torch in step.sides:
                yield f"Training step, {step.batch} images / {name}: {_said(step, 'step', torch, noise)}"
    if inference := found.get(INFERENCE):
        best = inference.best_torch("inference")
        if best:
            yield f"Inference, {inference.batch} images / torch's best: {_said(inference, 'inference', best, noise)}"
    if slowest := _slowest(report):
        _, row, phase, best = slowest
        yield f"Slowest layer against torch: {row.case} {phase}: {_said(row, phase, best, noise)}"
    if step and "torch eager" in step.sides:
        yield f"In one sentence: {_sentence(step, report)}."


def _said(row: Row, phase: str, torch: str, noise: float) -> str:
    ours = fastest(row)
    times = f"{milliseconds(row.seconds(phase, ours))} ms against {milliseconds(row.seconds(phase, torch))} by {torch}"
    return f"{ratio_text(row.ratio(phase, ours, torch), noise)} ({times})"


def _slowest(report: Report) -> tuple[float, Row, str, str] | None:
    rows = [row for row in report.rows if row.rounds and row.group in LAYERS]
    pairs = [(row, phase, best) for row in rows for phase in row.phases if (best := row.best_torch(phase))]
    compared = [(row.ratio(phase, fastest(row), best).median, row, phase, best) for row, phase, best in pairs]
    return max(compared, key=lambda one: one[0], default=None)


def _sentence(step: Row, report: Report) -> str:
    ours, best = fastest(step), step.best_torch("step") or "torch eager"
    eager, other = (step.ratio("step", ours, torch) for torch in ("torch eager", best))
    noise = report.noise()
    said = f"on this machine scratch trains AlexNet {_times(eager, noise)} eager torch"
    return said if best == "torch eager" else f"{said}, and {_times(other, noise)} torch's best, {best.removeprefix('torch ')}"


def _times(ratio: Ratio, noise: float) -> str:
    if ratio.within(noise):
        return "about as fast as" if noise <= stats.EQUAL else "not measurably faster or slower than"
    if ratio.median < 1:
        return f"{1 / ratio.median:.1f} times as fast as"
    return f"{ratio.median:.1f} times slower than" if ratio.median >= 1.05 else "slightly slower than"
