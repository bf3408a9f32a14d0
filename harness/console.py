"""Output of the command `harness`: help, progress, the view of a run, the summary of a sweep."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from harness.config import RunSpec, changes, flatten, groups, places, run_folder, shown, to_mapping
from harness.config.identity import WITHOUT_EFFECT, label, readable
from harness.formats import per_cent
from harness.report.console_parts import plain_table, progress_bar
from harness.report.tensorboard_hint import runs_in, tick_hint
from harness.sweeps.job import JobResult
from harness.sweeps.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd

FEWER = "; record.census_share=0.1 takes fewer"
DEAR, LONG = 0.1, 10.0  # suggest fewer censuses above this share of a run's time, for runs of more seconds
LINES = 100  # most runs to list one by one
HEADER = """\
harness trains a network, watches every unit at every step, and says which are dead, how sure that is,
and when they died."""
VALUES = (
    "Set a value with group.key=value; -m runs a sweep. `harness model=cnn --help` shows that run's values,\n"
    "and `harness --explain record.early` (any key or group) says what one is and takes:"
)
FOOTER = """\
One run:     harness data=mnist model=cnn optim=adam optim.lr=0.01 bias.offset=-0.5
A sweep:     harness -m optim.lr=0.01,0.1,1 activation=relu,leaky_relu 'seed=range(4)'
Yours:       harness --config-dir conf experiment=mine        harness model=custom model.target=nets:Wide
In a shell:  harness --install-completion                    (bash, zsh or fish)
Afterwards:  harness-tools report runs        tensorboard --logdir runs"""


def about(overrides: Sequence[str] = (), *, version: bool = False) -> str:
    """Return the help text, with all groups and the values that `overrides` select, or the version."""
    from harness import __version__

    if version:
        return f"harness {__version__}"
    import yaml

    rows = [(f"{group}=", " | ".join(names)) for group, names in groups(places(overrides)).items() if names]
    choices = "\n".join(f"  {group:<12}{names}" for group, names in rows)
    values = yaml.safe_dump(shown(overrides), sort_keys=False)
    return f"{HEADER}\n\nChoose a group:\n{choices}\n\n{VALUES}\n\n{_indented(values)}\n{FOOTER}"


def show(spec: RunSpec, outcome: JobResult) -> None:
    """Show one run from its folder."""
    from harness.detector.states import Thresholds
    from harness.report.tables import run_view
    from harness.store.runs import Run

    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    if outcome.state == "failed":
        console.print("failed:", style="bold red", end=" ")
        console.print(outcome.error, markup=False)
        if (traceback := outcome.path / "error.txt").is_file():  # missing if the disk was full
            console.print(f"The traceback is in {traceback}.", soft_wrap=True, markup=False)
        return
    run = Run(outcome.path)
    console.print(
        run_view(
            run.census,
            title=title(spec),
            thresholds=Thresholds.of(spec.detect),
            healthy=spec.detect.healthy,
            accuracy=run.final.get("accuracy"),
            diverged_at=run.status.get("diverged_at"),
        )
    )
    if run.status.get("stopped"):
        console.print(f"Stopped early: {run.status['stopped']}.", markup=False)
    every, steps = getattr(spec.remedy, "every", 0), run.status.get("steps")
    if steps and (every or 0) > steps:
        console.print(f"remedy={spec.remedy.name} never acted: remedy.every={every:,}, and {steps:,} steps.")
    if run.status.get("diagnosis") and (run.final | run.last).get("cause") != "none":
        console.print(f"\nWhy: {run.status['diagnosis']}", markup=False)
    if outcome.stored:
        own = "custom" in (spec.data.name, spec.model.name)
        again = "force=true trains it again" + (", as after a change of its code" if own else "")
        console.print(f"This run was finished before: its stored result is shown ({again}).")
    places = f"\n{_census_cost(spec, run.status)}results     {outcome.path}"
    if spec.record.tensorboard:
        places += f"\n{dashboard_lines(spec.output)}"
    console.print(places, soft_wrap=True, markup=False)


def _census_cost(spec: RunSpec, status: dict[str, Any]) -> str:
    """Return the cost of a run's censuses, with a hint if it is high; "" if unknown."""
    spent, total = status.get("census_seconds"), status.get("seconds")
    if spent is None or not total:
        return ""
    fewer = FEWER if _dear(spent, total) and _unlimited(spec) else ""
    return f"{_census_share(spent, total)}{fewer}\n"


def _sweep_cost(specs: Sequence[RunSpec], outcomes: Sequence[JobResult]) -> str:
    """Like `_census_cost` for all newly trained runs of a sweep, but "" unless the cost is high."""
    from harness.store.runs import Run

    if not any(_unlimited(spec) for spec in specs):
        return ""
    known = [Run(outcome.path).status for outcome in outcomes if not outcome.stored]
    known = [status for status in known if status.get("census_seconds") is not None]
    spent, total = (sum(status.get(key) or 0.0 for status in known) for key in ("census_seconds", "seconds"))
    return f"{_census_share(spent, total)}{FEWER}\n" if _dear(spent, total) else ""


def _unlimited(spec: RunSpec) -> bool:
    """Whether censuses are not limited to a share of the training's cost."""
    return spec.record.census_every is not None and spec.record.census_share is None


def _dear(spent: float, total: float) -> bool:
    return total > LONG and spent > DEAR * total


def _census_share(spent: float, total: float) -> str:
    return f"censuses    {spent:.1f} s of {total:.1f} s ({100 * min(1.0, spent / total):.0f} %)"


def dashboard_lines(output: str) -> str:
    """Return the command that starts TensorBoard, with a hint on what to select there if needed."""
    hint = tick_hint(runs_in(Path(output).expanduser()))
    return f"dashboard   tensorboard --logdir {quote(output)}" + (f"\n            {hint}" if hint else "")


def title(spec: RunSpec) -> str:
    """Describe a run in a few words."""
    parts = [label(spec.data), label(spec.model)]
    if spec.model.name != "custom" or spec.activation.name != "relu":
        parts.append(spec.activation.name)
    parts.append(f"{spec.optim.name} lr {spec.optim.lr:g}")
    if spec.bias.offset:
        parts.append(f"bias {spec.bias.offset:+g}")
    return " · ".join([*parts, f"seed {spec.seed}"])


def show_plan(sweep: Sweep) -> None:
    """Show what a sweep is going to do."""
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    cohorts = [task for task in sweep.tasks if task.stacked]
    singles = [task for task in sweep.tasks if not task.stacked]
    waiting = sum(len(task.specs) for task in sweep.tasks)
    text = f"{len(sweep.specs):,} run(s) in {sweep.output}: {waiting:,} to train"
    if waiting < len(sweep.specs):
        text += f", {len(sweep.specs) - waiting:,} with a stored result"
    console.print(f"{text}.", markup=False)
    if cohorts:
        sizes = sorted({len(task.specs) for task in cohorts}, reverse=True)
        members = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[-1]} to {sizes[0]}"
        runs = sum(len(task.specs) for task in cohorts)
        console.print(f"  {runs:,} as {len(cohorts):,} cohort(s) of {members}: trained as one stack each")
    for reason, count in Counter(task.why_single for task in singles).most_common():
        console.print(f"  {count:,} one by one: {reason}", markup=False)


def show_sweep(specs: Sequence[RunSpec], outcomes: Sequence[JobResult]) -> None:
    """Show a line per run of a small sweep or the state counts of a large one, and the errors."""
    from harness.store.runs import Run

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    states = Counter(outcome.state for outcome in outcomes)
    words = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    if len(specs) <= LINES:
        heading = f"{len(specs)} run(s) in {specs[0].output}"
        table = plain_table(heading, padding=(0, 1), pad_edge=True)
        also = _apart(specs)
        left = ("run", *(["with"] if any(also) else []), "status")
        for name in (*left, "dead", "born dead", "died", "accuracy"):
            side = "left" if name in left else "right"
            table.add_column(name, justify=side, no_wrap=name not in ("run", "with"), overflow="fold")
        for outcome, more in zip(outcomes, also, strict=True):
            final = Run(outcome.path).final if outcome.state == "finished" else {}
            keys = ("dead_fraction", "born_dead_fraction", "died_fraction", "accuracy")
            # a run that did not finish has no share; showing 0 % would be wrong
            shares = [per_cent(final.get(key), missing="-") if final else "" for key in keys]
            table.add_row(outcome.path.name, *([more] if any(also) else []), outcome.state, *shares)
        console.print(table)
    else:
        console.print(f"\n{len(specs):,} runs in {specs[0].output}: {words}.", markup=False)
    errors = [outcome for outcome in outcomes if outcome.error]
    for outcome in errors[:LINES]:
        console.print(outcome.state, style="bold red", end=" ")
        console.print(f"{outcome.path}: {outcome.error}", soft_wrap=True, markup=False)
    if len(errors) > LINES:
        console.print(
            f"… and {len(errors) - LINES:,} more; harness-tools status {quote(specs[0].output)}", markup=False
        )
    for why, count in Counter(outcome.not_stacked for outcome in outcomes if outcome.not_stacked).items():
        console.print(f"{count:,} run(s) trained alone, since their stack failed: {why}", markup=False)
    if any(outcome.state in ("finished", "diverged") for outcome in outcomes):
        console.print(
            f"{_sweep_cost(specs, outcomes)}"
            f"compare     harness-tools compare {quote(specs[0].output)}\n"
            f"tables      harness.open_runs({str(specs[0].output)!r}).table\n"
            f"{dashboard_lines(specs[0].output)}",
            soft_wrap=True,
            markup=False,
        )


def _apart(specs: Sequence[RunSpec]) -> list[str]:
    """For each run, the settings in which runs differ whose names differ in their hash alone."""
    plain = [
        {key: value for key, value in flatten(to_mapping(spec)).items() if key not in WITHOUT_EFFECT}
        for spec in specs
    ]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for spec, settings in zip(specs, plain, strict=True):
        by_name.setdefault(readable(spec), []).append(settings)
    keys = [
        key
        for key in dict.fromkeys(key for settings in plain for key in settings)
        if any(
            all(key in one for one in alike) and len({str(one[key]) for one in alike}) > 1
            for alike in by_name.values()
        )
    ]
    return [
        " ".join(f"{key.removesuffix('.name')}={_short(one[key])}" for key in keys if key in one)
        for one in plain
    ]


@contextmanager
def sweep_progress(sweep: Sweep) -> Iterator[Callable[[Sweep, Any], None]]:
    """Show the progress of a sweep on stderr if it is a terminal."""
    left = sum(len(task.specs) for task in sweep.tasks)
    bar = progress_bar("runs  {task.fields[words]}")
    began = time.monotonic()
    line = bar.add_task("", total=float(left), words="")
    before = len(sweep.outcomes)

    def tell(sweep: Sweep, event: Any) -> None:
        states = Counter(outcome.state for outcome in sweep.outcomes.values())
        done = len(sweep.outcomes) - before
        speed = 60 * done / max(1e-9, time.monotonic() - began)
        words = f"{states['diverged']} diverged  {states['failed']} failed  {speed:.0f} runs/min"
        bar.update(line, completed=done + sweep.under_way, words=words)

    with bar:
        yield tell


def progress(spec: RunSpec, total: int) -> AbstractContextManager[Any]:
    """Announce a run on stderr, and return a progress display, which is empty without a terminal."""
    print(started(spec, total), file=sys.stderr)
    return Bar(spec, total) if sys.stderr.isatty() else nullcontext()


def started(spec: RunSpec, total: int) -> str:
    """Describe a run: its name, device, length and changes from the defaults."""
    from harness.training.device import place

    changed = [
        f"{key.removesuffix('.name')}={_short(value)}"
        + ("" if key.endswith(".name") or default in (None, "???") else f" ({_short(default)})")
        for key, (value, default) in changes(to_mapping(spec)).items()
        if key not in WITHOUT_EFFECT and (key, value) != ("init.name", "own")
    ]
    other = f"changed from the defaults: {', '.join(changed)}" if changed else "all by default"
    return f"{run_folder(spec).name} on {place(spec)[0]}, {total:,} steps; {other}"


class Bar:
    """Shows step, loss, accuracy, dead share and time left (a Listener of `harness.training.run_logger`)."""

    def __init__(self, spec: RunSpec, total: int) -> None:
        text = "loss {task.fields[loss]}  acc {task.fields[accuracy]}  dead {task.fields[dead]}"
        self._bar = progress_bar(text, 18)
        self._task = self._bar.add_task("", total=total, loss="-", accuracy="-", dead="-")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def tick(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def steps(self, rows: pd.DataFrame) -> None:
        last = rows.tail(20)
        loss, accuracy = f"{last['loss'].mean():.3f}", per_cent(last["accuracy"].mean(), missing="-")
        self._bar.update(self._task, loss=loss, accuracy=accuracy)

    def census(self, rows: pd.DataFrame) -> None:
        from harness.detector.lifetimes import one_evidence
        from harness.detector.states import dead_fraction

        self._bar.update(self._task, dead=per_cent(dead_fraction(one_evidence(rows)), missing="-"))


def _short(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
