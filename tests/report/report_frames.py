"""Small tables for the views' tests, with known numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.detector.states import classify


def history() -> pd.DataFrame:
    """Two sites of four units: one born dead, two that die (one revives), one rare, one starved."""
    counts = {  # evidence, step, site: inputs on which each unit's gate was open
        ("probe", 0, "a"): [0, 90, 50, 200],
        ("probe", 0, "b"): [40, 60, 80, 100],
        ("stream", 10, "a"): [0, 60, 50, 64],
        ("stream", 10, "b"): [0, 5, 1, 9],
        ("probe", 10, "a"): [0, 0, 50, 1],
        ("probe", 10, "b"): [0, 60, 1, 100],
        ("stream", 20, "a"): [0, 0, 50, 64],
        ("stream", 20, "b"): [3, 5, 1, 9],
        ("probe", 20, "a"): [0, 0, 50, 200],
        ("probe", 20, "b"): [4, 60, 1, 100],
    }
    rows = [
        {
            "evidence": evidence,
            "step": step,
            "site": site,
            "unit": unit,
            "n": 200 if evidence == "probe" else 64,
            "active": active,
            "non_finite": 0,
            "rate": active / (200 if evidence == "probe" else 64),
            "grad_rms": np.nan if evidence == "probe" else 0.0 if active in (0, 5) else 1e-3,
            "grad_norm": np.nan if evidence == "probe" else 0.0 if active in (0, 5) else 1e-2,
        }
        for (evidence, step, site), counted in counts.items()
        for unit, active in enumerate(counted)
    ]
    return classify(pd.DataFrame(rows))


def steps() -> pd.DataFrame:
    """A loss that ends as not finite, a test accuracy at times, and a metric of somebody's own."""
    step = np.arange(1, 401)
    loss = 10.0 / step
    loss[-1] = np.nan
    tested = np.where(step % 100 == 0, step / 500, np.nan)
    return pd.DataFrame(
        {"step": step, "lr": 0.1, "loss": loss, "test_accuracy": tested, "margin": -1.0 * step}
    )


def blind(frame: pd.DataFrame) -> pd.DataFrame:
    """The same history, had nothing been observed."""
    return classify(frame.assign(n=0, active=0, rate=np.nan))


def effects() -> pd.DataFrame:
    """Two levels against a third, for two activations and two outcomes."""
    rows = [
        {
            "activation.name": activation,
            "level": level,
            "baseline": 0.01,
            "outcome": outcome,
            "runs": 8,
            "pairs": 8,
            "diverged": 3 if level == 1.0 else 0,
            "failed": 0,
            "mean": 0.3,
            "baseline_mean": 0.1,
            "difference": difference,
            "low": difference - 0.05,
            "high": difference + 0.05,
            "p": 0.01,
            "p_adjusted": 0.01 if difference > 0.1 else 0.4,
        }
        for activation in ("relu", "leaky_relu")
        for level, difference in ((0.1, 0.02), (1.0, 0.4))
        for outcome in ("dead", "accuracy")
    ]
    return pd.DataFrame(rows)


def ranking() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "term": ["bias.offset", "activation.name", "activation.name × bias.offset"],
            "share": [0.1, 0.6, 0.2],
            "low": [0.05, 0.5, 0.1],
            "high": [0.2, 0.7, 0.3],
            "p": [0.2, 1e-4, 0.01],
            "p_adjusted": [0.2, 3e-4, 0.02],
        }
    )


def phase() -> pd.DataFrame:
    """One cell in which all diverged, one in which some did."""
    return pd.DataFrame(
        {
            "optim.lr": [0.1, 10.0, 0.1, 10.0],
            "bias.offset": [0.0, 0.0, -1.0, -1.0],
            "mean": [0.05, np.nan, 0.8, 0.9],
            "runs": [8, 8, 8, 8],
            "diverged": [0, 8, 0, 3],
            "failed": [0, 0, 0, 0],
        }
    )


def dose() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "setting": ["relu"] * 3 + ["elu"] * 3,
            "optim.lr": [0.1, 1.0, 10.0] * 2,
            "mean": [0.1, 0.5, np.nan, 0.0, 0.0, 0.1],
            "low": [0.05, 0.4, np.nan, 0.0, 0.0, 0.0],
            "high": [0.2, 0.6, np.nan, 0.0, 0.0, 0.2],
            "runs": [8] * 6,
            "diverged": [0, 0, 8, 0, 0, 2],
        }
    )


def critical() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "setting": ["relu", "elu"],
            "critical": [1.0, np.nan],
            "low": [0.7, np.nan],
            "high": [1.4, np.nan],
            "note": ["", "not reached below 10"],
        }
    )


def survival() -> pd.DataFrame:
    steps = [0, 10, 20]
    rows = [
        {
            "setting": setting,
            "step": step,
            "survival": 1 - fall * k,
            "low": 1 - fall * k - 0.02,
            "high": min(1.0, 1 - fall * k + 0.02),
            "at_risk": 100,
            "runs": 8,
        }
        for setting, fall in (("0.1", 0.1), ("1", 0.4))
        for k, step in enumerate(steps)
    ]
    return pd.DataFrame(rows)


def over_time() -> pd.DataFrame:
    """Of two settings, the dead share at three steps."""
    rows = [
        {"setting": setting, "step": step, "dead": dead, "low": dead - 0.01, "high": dead + 0.02, "runs": 8}
        for setting, level in (("optim.lr=0.1", 0.1), ("optim.lr=1", 0.5))
        for step, dead in ((0, 0.02), (10, level), (20, level))
    ]
    return pd.DataFrame(rows)


def overlaps() -> pd.DataFrame:
    """Two sites at two steps against the last; one has no dead unit at first."""
    return pd.DataFrame(
        {
            "step": [0, 0, 10, 10],
            "site": ["a", "b", "a", "b"],
            "other": 20,
            "units": 4,
            "dead": [1, 0, 2, 1],
            "overlap": [1.0, np.nan, 0.5, 1.0],
            "chance": [0.5, np.nan, 0.5, 0.25],
        }
    )


def cures() -> pd.DataFrame:
    """A prescription's table: two cures to the end, one that was left behind, and the run as it was."""
    rows = [
        ("zero bias", 900, 0.97, 0.05),
        ("leaky_relu", 900, 0.9, 0.0),
        ("as it was", 900, 0.1, 1.0),
        ("as it was, other seeds", 900, 0.11, 1.0),
        ("warm-up", 90, 0.1, 1.0),
    ]
    return pd.DataFrame(rows, columns=pd.Index(["cure", "steps", "metric", "dead"]))
