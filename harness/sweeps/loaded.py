"""Importing this module leaves a process ready to train: imports done, compiled loops loaded."""

from __future__ import annotations

import torch

import harness.detector.verdict
import harness.report.tensorboard
import harness.sweeps.cohort_job
import harness.training.stacked  # noqa: F401

torch.set_num_threads(1)  # a process that computed on several threads must not be forked
