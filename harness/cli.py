"""`harness`: one run, or a sweep with -m."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from io import StringIO

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from harness.completion import install
from harness.config import (
    OURS,
    PRIMARY,
    ConfigError,
    RunSpec,
    asks_for_sweep,
    checked,
    compose,
    config_dir,
    explain,
    is_option,
    joined,
    launcher,
    plan,
    prepare,
    refuse_folders,
    run_folder,
    value_of,
)
from harness.console import about, progress, show, show_plan, show_sweep, sweep_progress
from harness.sweeps.job import JobResult, check_jobs, missing, run_job, stored
from harness.sweeps.pool import run_in_worker
from harness.sweeps.remote import run_written, show_plugins, write_tasks
from harness.sweeps.sweep import Sweep, plan_sweep, refuse_idle_axes, run_sweep

SWEEP_WORDS = {"-m", "--multirun", "--dry-run"}
launched: list[bool] = []  # whether Hydra's own application ran in this process
FAR = ("ray", "submitit")  # launchers that reach other machines: they carry cohorts

SHOWN = {"--cfg", "-c"}
ABOUT_SHOWN = {"--package", "-p", "--resolve"}  # say which part is shown, and how
COMPLETION = {"--shell-completion", "-sc"}
HYDRAS_OWN = {"--hydra-help", "--info", "-i", *SHOWN, *ABOUT_SHOWN}
EVERY = (  # options as a shell completes them
    "--cfg --config-dir --config-name --config-path --dry-run --explain --help --hydra-help --info"
    " --install-completion --multirun --package --resolve --version"
)


def main(argv: list[str] | None = None) -> None:
    """Exit with 0 for a result (a diverged run is one), 1 for a failed run, 2 for a wrong command line."""
    try:
        code = run(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        print(f"harness: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("harness: interrupted; the same command continues.", file=sys.stderr)
        code = 130
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Carry out a command line and return its exit code.

    Raises:
        ConfigError: what the user typed cannot be run; nothing was written.
    """
    show_plugins()
    argv = joined(argv)
    words = {word.split("=", 1)[0] for word in argv if word.startswith("-") and not is_option(word)}
    overrides = [word for word in argv if is_option(word) or not word.startswith("-")]
    if words & {"--help", "-h", "--version"}:
        print(about(overrides, version="--version" in words))
        return 0
    if "--explain" in words:
        print(explain(value_of(argv, "--explain"), overrides))
        return 0
    if "--install-completion" in words:
        print(install("harness", [word for word in overrides if not is_option(word)], _completion))
        return 0
    if words & COMPLETION:
        return _complete(argv)
    if words & HYDRAS_OWN:
        return _ask_hydra(argv, words)
    if words - SWEEP_WORDS:
        unknown = sorted(words - SWEEP_WORDS)[0]
        raise ConfigError(unknown, "there is no such option", hint="harness --help shows what there is.")
    refuse_folders(overrides)
    if words & {"-m", "--multirun"} or asks_for_sweep(overrides):
        return _sweep(overrides, dry="--dry-run" in words)
    spec = compose(overrides)
    if words:
        print(f"{run_folder(spec)}: {'has a result' if stored(spec) else 'would be trained'}")
        return 0
    outcome = run_job(spec, progress)
    try:
        show(spec, outcome)
    except (OSError, ValueError) as error:  # a damaged table
        reason = str(error).splitlines()[0]
        raise ConfigError(
            "", f"cannot read {outcome.path} ({reason})", hint="force=true trains again."
        ) from None
    return 1 if outcome.state == "failed" else 0


def _ask_hydra(argv: list[str], words: set[str]) -> int:
    """What Hydra says of a configuration, or of itself; nothing is trained."""
    if words & {"-m", "--multirun"}:
        raise ConfigError("-m", f"does not go with {' '.join(sorted(words & HYDRAS_OWN))}")
    if words & ABOUT_SHOWN and not words & SHOWN:
        raise ConfigError(
            sorted(words & ABOUT_SHOWN)[0], "goes with --cfg job, which shows the configuration"
        )
    compose([word for word in argv if "=" in word and (is_option(word) or not word.startswith("-"))])
    return _hydra_says(argv)


def _hydra_says(argv: list[str]) -> int:
    try:
        return _hydra(argv)
    except (HydraException, ValueError) as error:
        raise ConfigError("", str(error).splitlines()[0].rstrip(".")) from None
    except SystemExit as ended:  # it has said why
        return 2 if ended.code else 0


def _completion(shell: str) -> str:
    """Hydra's script that makes a shell complete `harness`."""
    sys.argv[0] = "harness"
    with redirect_stdout(StringIO()) as script:
        _hydra(["-sc", f"install={shell}"])
    return script.getvalue()


def _complete(argv: list[str]) -> int:
    """Hydra's completion of keys and choices, those of one's own folders too, and of options."""
    line = os.environ.get("COMP_LINE", "").split(" ")
    if not any(word.startswith("query=") for word in argv) or not line:
        return _hydra_says(argv)
    if line[-1].startswith("-"):
        print(" ".join(option for option in EVERY.split() if option.startswith(line[-1])))
        return 0
    with suppress(ConfigError, HydraException), redirect_stderr(StringIO()):
        places = [word for word in joined(line[:-1]) if is_option(word)]
        ours = [word for word in line if word not in (*SWEEP_WORDS, "--explain")]
        os.environ["COMP_LINE"] = " ".join(ours)
        return _hydra_says([*places, *argv])
    return 0


def _sweep(overrides: list[str], *, dry: bool) -> int:
    """Check every job, divide what is left among workers (or leave it to Hydra's launcher), say what came."""
    node = launcher(overrides)
    ours = node.get("_target_") == OURS
    if "SlurmLauncher" in str(node.get("_target_")) and shutil.which("srun") is None:
        raise ConfigError(
            "hydra/launcher",
            "submitit_slurm needs srun, which this machine has not",
            hint="Start the sweep on a node of the cluster, or take hydra/launcher=submitit_local.",
        )
    specs = plan(overrides, multirun=True)
    refuse_idle_axes(specs)
    far = any(name in str(node.get("_target_")) for name in FAR)
    options = {"stack": node.stack, "most": node.cohort} if ours else {"stack": far}
    sweep = plan_sweep(specs, **options)
    show_plan(sweep)
    if dry:
        return 0
    run_in_worker(check_jobs, [spec for task in sweep.tasks for spec in task.specs])
    if ours:
        with sweep_progress(sweep) as tell:
            run_sweep(sweep, node.workers, tell)
    elif sweep.tasks:
        _launch(sweep, overrides, far=far)
    outcomes = {name: sweep.outcomes.get(name) or _found(spec) for name, spec in sweep.specs.items()}
    show_sweep(list(sweep.specs.values()), list(outcomes.values()))
    return 1 if any(outcome.state == "failed" for outcome in outcomes.values()) else 0


def _launch(sweep: Sweep, overrides: list[str], *, far: bool) -> None:
    """Hydra's own way: its sweeper and launcher, one job per run, or one per cohort on far machines."""
    argv = ["-m", *overrides]
    if far:
        os.environ["HARNESS_TASKS"] = str(write_tasks(sweep))
        argv.append("hydra/sweeper=cohorts")
    _hydra(argv)


def _found(spec: RunSpec) -> JobResult:
    return stored(replace(spec, force=False)) or missing(spec)


def _hydra(argv: list[str]) -> int:
    """Hydra's own application around `_task`."""
    launched.append(True)
    prepare()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    sys.argv = [sys.argv[0], *argv]
    hydra.main(config_path=str(config_dir()), config_name=PRIMARY, version_base="1.3")(_task)()
    return 0


def _task(config: DictConfig) -> str:
    """One job of a launcher; the other jobs of a sweep go on whatever becomes of it."""
    place = config.get("task")
    if place is not None:
        return ", ".join(outcome.state for outcome in run_written(place))
    try:
        return run_job(checked(config), alone=False).state
    except ConfigError as error:
        print(f"harness: {error}", file=sys.stderr)
        return "refused"
