"""Why this unit: its evidence, line by line."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from torch import nn

from harness.hooks.gradients import by_unit, unit_parameters
from harness.hooks.sites import Site


def explain(history: pd.DataFrame, sites: Sequence[Site], model: nn.Module, site: str, unit: int) -> str:
    """What the censuses and the model know of one unit.

    Args:
        history: the censuses, oldest first.
        sites: those of the model.
        model: the root, in which the unit's layer is looked up.
        site: name of its site.
        unit: its number.

    Raises:
        ValueError: no such site or unit.
    """
    rows = history[(history["site"] == site) & (history["unit"] == unit)]
    if rows.empty:
        names = ", ".join(f"{s.name} ({s.size} units)" for s in sites if s.size >= 0)
        raise ValueError(f"expected a site and one of its units, but got {site!r}, {unit}. Sites: {names}")
    producer = next((s.producer for s in sites if s.name == site), None)
    layer = None if producer is None else dict(model.named_modules()).get(producer)
    return "\n".join(_lines(rows, layer, unit))


def _lines(rows: pd.DataFrame, layer: nn.Module | None, unit: int) -> list[str]:
    """The unit's rows, and the module that feeds it, if it has per-unit parameters."""
    last = rows[rows["n"] > 0].iloc[-1] if (rows["n"] > 0).any() else rows.iloc[-1]
    lines = [
        f"{last['site']}, unit {unit}: {last['state']} at step {last['step']:,} ({last['evidence']}).",
        f"gate        open on {last['active']:,} of {last['n']:,} inputs "
        f"(rate < {100 * last['rate_upper']:.2g} %); silent for {last['silent_for']:,} inputs",
        f"z           mean {last['mean']:.4g}, deviation {last['std']:.4g}, largest {last['max']:.4g}",
    ]
    if layer is not None:
        size = getattr(layer, "out_features", getattr(layer, "out_channels", 0)) or getattr(
            layer, "num_features", 0
        )
        for parameter in unit_parameters(layer, size):
            row = by_unit(parameter.detach(), layer)[unit]
            word = f"weights     norm {row.norm():.4g}" if row.ndim else f"bias        {float(row):.4g}"
            lines.append(f"{word} now")
    gradients = rows.dropna(subset=["grad_rms"])
    if len(gradients):
        latest = gradients.iloc[-1]
        rms, norm = latest["grad_rms"], latest["grad_norm"]
        lines.append(f"gradient    rms of ∂L/∂z {rms:.4g}, norm of the incoming weights' {norm:.4g}")
    lines.append(f"life        {_life(rows)}")
    return lines


def _life(rows: pd.DataFrame) -> str:
    evidence = rows[rows["evidence"] == "probe"]
    seen = evidence if len(evidence) else rows
    seen = seen[~seen["state"].isin(("unobserved", "non_finite"))]
    if seen.empty:
        return "never observed"
    dead = (seen["state"] == "dead").tolist()
    steps = seen["step"].tolist()
    turns = ["born dead" if dead[0] else f"alive at step {steps[0]:,}"]
    for was, now, step in zip(dead, dead[1:], steps[1:], strict=False):
        if was != now:
            turns.append(f"{'died' if now else 'revived'} by step {step:,}")
    return ", ".join(turns)
