"""Hydra's basic sweeper, but each job that it launches is a task of a sweep: a cohort of runs, or one run.

For launchers that use other machines (Slurm via submitit, Ray): the jobs read their tasks from a file.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore

TASKS = "HARNESS_TASKS"  # environment variable with the path of the file of tasks


@dataclass
class CohortSweeperConf:
    """`hydra/sweeper=cohorts`; experiments put the keys they sweep over into `params`."""

    _target_: str = "hydra_plugins.harness_sweeper.CohortSweeper"
    max_batch_size: Any = None
    params: Any = None


ConfigStore.instance().store(
    group="hydra/sweeper", name="cohorts", node=CohortSweeperConf, provider="harness"
)


class CohortSweeper(BasicSweeper):
    """Launches one job per task."""

    def sweep(self, arguments: list[str]) -> Any:
        """Launch every task of the file that HARNESS_TASKS names."""
        assert self.launcher is not None
        path = Path(os.environ[TASKS])
        count = len(json.loads(path.read_text())["tasks"])
        quoted = str(path).replace("'", r"\'")
        return [self.launcher.launch([[f"+task='{quoted}:{k}'"] for k in range(count)], initial_job_idx=0)]
