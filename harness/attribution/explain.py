"""Explains one unit: everything known about it, line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from harness.attribution.own_parameters import OwnParameters
from harness.detector.grid import one_evidence, telling
from harness.graph.plan import Site, plain_name, qualified_names
from harness.recording.batches import evaluation
from harness.recording.unit_parameters import by_unit

#: Activations that are linear where their gate is open.
STRAIGHT = ("relu", "relu6", "hardtanh", "clamp", "maximum", "threshold", "hardshrink")


def explain(
    history: pd.DataFrame,
    sites: Sequence[Site],
    model: nn.Module,
    site: str,
    unit: int,
    own_parameters: Callable[[str], OwnParameters | None] | None = None,
    cause: Callable[[], str] | None = None,
) -> str:
    """Describe one unit from the censuses and the model.

    Args:
        history: the censuses, oldest first.
        sites: sites of the model.
        model: the root module, in which the unit's layer is looked up.
        site: name of the unit's site.
        unit: its number.
        own_parameters: finds the parameters of a site whose layer is not a module.
        cause: returns why the unit is dead; called only if it is.

    Returns:
        The description, in lines; for a site that was never observed, the reason.

    Raises:
        ValueError: the site or unit does not exist.
    """
    rows = history[(history["site"] == site) & (history["unit"] == unit)]
    described = next((s for s in sites if s.name == site), None)
    if described is not None and described.reason and not (rows["n"] > 0).any():
        return f"{site}: unobserved, so nothing is known of its units: {described.reason}."
    if rows.empty:
        names = ", ".join(f"{s.name} ({s.size} units)" for s in sites if s.size >= 0)
        raise ValueError(f"expected a site and one of its units, but got {site!r}, {unit}. Sites: {names}")
    modules = {name: module for module, name in qualified_names(model).items()}
    producer = None if described is None else described.single_producer
    layer = None if producer is None else modules.get(producer)
    values = [] if described is None or layer is None else _incoming(layer, described.size, unit)
    if described is not None and producer is not None and not values:
        own = None if own_parameters is None else own_parameters(site)
        values = _parameters(model, described, producer, unit, own)
    lines = list(_lines(rows, values, int(one_evidence(history)["step"].min())))
    dead = one_evidence(rows)["state"].iloc[-1] == "dead" or rows["state"].iloc[-1] == "dead"
    if dead and cause is not None:
        lines.append(f"cause       {cause()}")
    if described is not None and lines[0].split(": ")[1].startswith("always_on"):
        linear = (
            "linear on these inputs" if described.activation in STRAIGHT else "which does not make it linear"
        )
        lines.insert(2, f"always on   {described.activation} with its gate open on every input: {linear}")
    return "\n".join(lines)


def _incoming(layer: nn.Module, size: int, unit: int) -> list[str]:
    """The unit's weights and bias as the forward uses them, including reparametrised ones."""
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return []
    lines = []
    with evaluation(layer), torch.no_grad():  # reading a spectral norm's weight in training mode changes it
        for name in ("weight", "bias"):
            value = getattr(layer, name, None)
            rows = by_unit(value, layer) if isinstance(value, Tensor) else ()
            if len(rows) == size:
                row = rows[unit]
                text = f"weights     norm {row.norm():.4g}" if row.ndim else f"{name:<12}{float(row):.4g}"
                lines.append(f"{text} now")
    return lines


def _parameters(
    model: nn.Module, site: Site, producer: str, unit: int, own: OwnParameters | None
) -> list[str]:
    """The same for a layer made of single parameters."""
    values = {plain_name(name, model): p.detach() for name, p in model.named_parameters()}
    if own is not None:
        rows = {name: own.rows(name, values[name]) for name in own.axes if name in values}
    else:  # parameters named by the plan, if it is clear which axis counts the units
        rows = {}
        for name, value in values.items():
            axes = [axis for axis, size in enumerate(value.shape) if size == site.size]
            if (name == producer or name.rpartition(".")[0] == producer) and len(axes) == 1:
                rows[name] = value.movedim(axes[0], 0).flatten(1) if value.ndim > 1 else value[:, None]
    lines = []
    for name, value in sorted(rows.items(), key=lambda pair: -pair[1].shape[1]):
        row = value[unit]
        text = f"{float(row):.4g} now" if len(row) == 1 else f"norm {row.norm():.4g} now"
        kind = (
            "weights" if len(row) > 1 else "bias" if own is not None and name in own.biases else "parameter"
        )
        lines.append(f"{kind:<12}{text} ({name})")
    if own is None and values.get(producer) is not None:
        lines.append("            its other parameters are found with evidence=True alone")
    return lines


def _lines(rows: pd.DataFrame, values: Sequence[str], start: int) -> Iterator[str]:
    """Lines for the unit's rows, with its incoming `values`; `start` is the history's first step."""
    last = rows[rows["n"] > 0].iloc[-1] if (rows["n"] > 0).any() else rows.iloc[-1]
    site, unit, state, step, kind = last[["site", "unit", "state", "step", "evidence"]]
    yield f"{site}, unit {unit}: {state} at step {step:,} ({kind})."
    if not last["n"]:
        yield "gate        nothing was observed, so nothing is known of it"
        return
    if last["active"]:
        rate = f"rate {100 * last['active'] / last['n']:.3g} %"
    else:
        rate = f"rate < {100 * last['rate_upper']:.2g} %"
    yield (f"gate        open on {last['active']:,} of {last['n']:,} inputs ({rate}); {_silence(last)}")
    if pd.isna(last["mean"]):
        yield f"z           NaN or infinite on all {last['n']:,} inputs"
    else:
        yield f"z           mean {last['mean']:.4g}, deviation {last['std']:.4g}, largest {last['max']:.4g}"
    yield from values
    gradients = rows.dropna(subset=["grad_rms"])
    if len(gradients):
        latest = gradients.iloc[-1]
        norm = latest["grad_norm"]  # NaN for a layer without parameters per unit
        incoming = "" if pd.isna(norm) else f", norm of the incoming weights' {norm:.4g}"
        yield f"gradient    rms of ∂L/∂z {latest['grad_rms']:.4g}{incoming}"
    yield f"life        {_life(rows, start)}"


def _silence(last: pd.Series) -> str:
    """How long a gate has been closed; a probe has the same inputs every time."""
    passes = int(last["silent_for"]) // int(last["n"])
    if last["evidence"] != "probe" or not passes:
        return f"silent for {last['silent_for']:,} inputs"
    return f"silent on these same inputs in the last {passes:,} censuses" if passes > 1 else "silent on all"


def _life(rows: pd.DataFrame, start: int) -> str:
    rows = telling(one_evidence(rows))
    if rows.empty:
        return "never observed"
    dead, steps = (rows["state"] == "dead").tolist(), rows["step"].tolist()
    saw = "" if steps[0] == start else " that saw it"
    closed = "born dead" if steps[0] == 0 else f"dead at the first census{saw}, step {steps[0]:,}"
    turns = [closed if dead[0] else f"alive at step {steps[0]:,}"]
    for was, now, step in zip(dead, dead[1:], steps[1:], strict=False):
        if was != now:
            turns.append(f"{'died' if now else 'revived'} by step {step:,}")
    where = "probe" if rows["evidence"].iloc[0] == "probe" else "training stream"
    return f"{', '.join(turns)} (on the {where})"
