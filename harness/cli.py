"""`harness`: one run, or a sweep with -m."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import hydra
from omegaconf import DictConfig

from harness.config import (
    ConfigError,
    asks_for_sweep,
    checked,
    compose,
    config_dir,
    plan,
    register_schema,
    run_id,
)
from harness.console import about, progress, show, show_sweep
from harness.sweeps.job import check_jobs, missing, run_job, stored

HYDRAS_OWN = {
    "--hydra-help",
    "--info",
    "-i",
    "--cfg",
    "-c",
    "--shell-completion",
    "-sc",
    "--package",
    "-p",
    "--resolve",
}


def main(argv: list[str] | None = None) -> None:
    """Exit with 0 for a result (a diverged run is one), 1 for a failed run, 2 for a wrong command line."""
    try:
        code = run(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        print(f"harness: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # `harness --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        print("harness: interrupted; the same command continues.", file=sys.stderr)
        code = 130
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Carry out a command line and return its exit code.

    Raises:
        ConfigError: what the user typed cannot be run; nothing was written.
    """
    words = {word.split("=", 1)[0] for word in argv if word.startswith("-")}
    if words & {"--help", "-h", "--version"}:
        overrides = [word for word in argv if not word.startswith("-")]
        print(about(overrides, version="--version" in words))
        return 0
    if words & HYDRAS_OWN:
        if words & {"-m", "--multirun"}:
            raise ConfigError("-m", f"does not go with {' '.join(sorted(words & HYDRAS_OWN))}")
        compose([word for word in argv if "=" in word and not word.startswith("-")])
        return _hydra(argv)
    if words - {"-m", "--multirun"}:
        unknown = sorted(words - {"-m", "--multirun"})[0]
        raise ConfigError(unknown, "there is no such option", hint="harness --help shows what there is.")
    overrides = [word for word in argv if not word.startswith("-")]
    if words or asks_for_sweep(overrides):
        return _sweep(overrides, argv if words else [*argv, "-m"])
    spec = compose(overrides)
    outcome = run_job(spec, progress())
    try:
        show(spec, outcome)
    except (OSError, ValueError) as error:  # a damaged table
        reason = str(error).splitlines()[0]
        raise ConfigError(
            "", f"cannot read {outcome.path} ({reason})", hint="force=true trains again."
        ) from None
    return 1 if outcome.state == "failed" else 0


def _sweep(overrides: list[str], argv: list[str]) -> int:
    """Check every job, let Hydra's launcher run them, then say from the disk what became of each."""
    specs = plan(overrides, multirun=True)
    check_jobs(specs)
    _hydra(argv)
    specs = list({run_id(spec): spec for spec in specs}.values())  # equal jobs are one run
    outcomes = [stored(replace(spec, force=False)) or missing(spec) for spec in specs]
    show_sweep(specs, outcomes)
    return 1 if any(outcome.state == "failed" for outcome in outcomes) else 0


def _hydra(argv: list[str]) -> int:
    """Hydra's own application around `_task`."""
    register_schema()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    sys.argv = [sys.argv[0], *argv]
    hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")(_task)()
    return 0


def _task(config: DictConfig) -> str:
    """One job of a launcher; the other jobs of a sweep go on whatever becomes of it."""
    try:
        return run_job(checked(config), None).state
    except ConfigError as error:
        print(f"harness: {error}", file=sys.stderr)
        return "refused"
