"""Importing this module loads everything that training needs."""

from __future__ import annotations

from harness.sweeps.preload import collector_at_rest

with collector_at_rest():
    import torch

    import harness.detector.verdict
    import harness.report.dashboard_command
    import harness.report.tensorboard
    import harness.sweeps.cohort_job
    import harness.training.stacked  # noqa: F401
    from harness.training.stacked.losses import losses_and_hits

torch.set_num_threads(1)  # forking is unsafe after computing on several threads
# numba's first call takes half a second
losses_and_hits(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.long))
