"""Diagnose why units of a stored run are dead, from its evidence or by training it again to gather it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from harness.attribution.diagnosis import Diagnosis
from harness.config import ConfigError, restore
from harness.report.report_command import stored_diagnosis
from harness.store.evidence import has_evidence, read_evidence, write_evidence
from harness.store.runs import Run
from harness.sweeps.job import run_job


def diagnose(run: Run | str | os.PathLike[str]) -> Diagnosis:
    """Diagnose why units of a stored run are dead.

    Runs of a sweep store no evidence, because that would slow the sweep down. Such a run is trained once
    more, which gives the same numbers, and the evidence is saved in its folder.

    Args:
        run: a run from `open_runs`, or its folder.

    Raises:
        FileNotFoundError: there is no run in that folder.
        ValueError: the run recorded nothing, or its configuration can no longer be trained.

    Example:
        >>> import tempfile, harness
        >>> from harness.config import compose
        >>> from harness.sweeps.job import run_job
        >>> run_job(compose(["train.epochs=1", "bias.offset=-2", f"output={tempfile.mkdtemp()}"])).path
        ... # doctest: +ELLIPSIS
        PosixPath('...')
    """
    found = run if isinstance(run, Run) else Run(Path(run))
    if not (found.path / "config.yaml").exists():
        raise FileNotFoundError(f"diagnose: expected a run's folder, but there is no run in {found.path}")
    if found.damage:
        raise ValueError(found.damage)
    if has_evidence(found.path):
        return stored_diagnosis(found)
    try:
        spec = restore(found.config)
    except ConfigError as error:
        raise ValueError(
            f"{found.path}: it kept no evidence, and cannot be trained again to gather it ({error})."
            " A training of your own keeps its evidence with evidence=True."
        ) from None
    if not spec.record.enabled:
        raise ValueError(f"{found.path}: nothing was recorded (record=off), so there is nothing to diagnose")
    _gather(found)
    return stored_diagnosis(Run(found.path))


def _gather(run: Run) -> None:
    """Train the run again in a temporary folder, and copy the evidence."""
    spec = restore(run.config)
    with tempfile.TemporaryDirectory() as folder:
        record = replace(spec.record, evidence=True, tensorboard=False)
        try:
            outcome = run_job(replace(spec, output=folder, record=record))
        except ConfigError as error:
            raise ValueError(
                f"{run.path}: it kept no evidence and cannot be trained again ({error})"
            ) from None
        if outcome.state == "failed":
            raise ValueError(
                f"{run.path}: it kept no evidence, and training it again failed ({outcome.error})"
            )
        tables = read_evidence(outcome.path)
        if tables is None:
            raise ValueError(f"{run.path}: it kept no evidence, and trained again it leaves none")
        write_evidence(run.path, tables)
