"""Columns of a run's tables, with their types on disk."""

from __future__ import annotations

import pyarrow as pa

CENSUS = pa.schema(
    [
        ("evidence", pa.string()),
        ("step", pa.int64()),
        ("site", pa.string()),
        ("unit", pa.int32()),
        ("n", pa.int64()),
        ("active", pa.int64()),
        ("rate", pa.float64()),
        ("rate_upper", pa.float64()),
        ("silent_for", pa.int64()),
        ("mean", pa.float32()),
        ("std", pa.float32()),
        ("max", pa.float32()),
        ("non_finite", pa.int64()),
        ("grad_rms", pa.float32()),
        ("grad_norm", pa.float32()),
        ("state", pa.string()),
    ]
)

STEPS = pa.schema(
    [
        ("step", pa.int64()),  # completed optimizer steps
        ("epoch", pa.float64()),
        ("loss", pa.float64()),  # of the batch, before the step
        ("accuracy", pa.float64()),  # of the batch
        ("lr", pa.float64()),
        ("test_loss", pa.float64()),  # NaN except where the test set was evaluated
        ("test_accuracy", pa.float64()),
    ]
)

EVENTS = pa.schema(
    [
        ("step", pa.int64()),
        # died, revived, unobserved, reshuffled_labels, permuted_inputs, diverged, untreated, or a remedy
        ("kind", pa.string()),
        ("site", pa.string()),
        ("units", pa.int64()),
        ("detail", pa.string()),
    ]
)

TABLES: dict[str, pa.Schema] = {"census": CENSUS, "steps": STEPS, "events": EVENTS}

# required columns; tables of older runs may lack others
NEEDED: dict[str, tuple[str, ...]] = {
    "census": ("evidence", "step", "site", "unit", "n", "active", "rate", "state"),
    "steps": ("step", "loss"),
    "events": ("step", "kind", "site", "units"),
}
COUNTS = {"step": 0, "n": 0, "active": 0, "unit": -1, "units": 0}  # column → smallest value
SHARES = ("rate",)
STATES = frozenset({"active", "always_on", "rare", "dead", "starved", "non_finite", "unobserved"})
WORDS = {"evidence": frozenset({"probe", "stream"}), "state": STATES}  # column → allowed values
