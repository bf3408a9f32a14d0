"""Starvation: why no gradient comes back to units whose gates open.

Found by trial, on the latest inputs: with random gradients at the model's outputs, what has to be changed for
something to reach the starved units? First nothing (then it was the loss, or the few inputs), then the dead
units of each later site are opened, then all of them, then zeros among the weights are made small numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from harness.attribution.findings import ELSEWHERE, LOSS, SELECTION, ZEROS
from harness.attribution.model_inputs import input_count
from harness.attribution.replay import Replay
from harness.attribution.snapshots import Snapshot, Values
from harness.graph.units import UnitLayout, arranged
from harness.hooks.windows import Windows

INPUTS = 256  # that are passed through
MOST = 16  # sites with dead units that are opened one by one
OPEN = 1e-3  # pre-activation of a unit that is opened: it changes what is behind it as little as may be
SELECTING = ("topk", "kthvalue", "sort", "argsort", "argmax", "msort")  # torch functions that choose units


def starvation(replay: Replay, snapshot: Snapshot, census: pd.DataFrame) -> pd.DataFrame:
    """Why each starved unit gets no gradient.

    Args:
        replay: of the model, in the modes of its training.
        snapshot: the latest parameters and inputs.
        census: of the stream.

    Returns:
        site, unit, starved_by: the names of the sites whose dead units stop the gradient, one to a line; or
        "the loss" (it gives no unit a gradient), "other inputs" (on which one comes), "zero weights",
        "selection: NAME" of the function that never selects them; "" where none of these is the reason.
    """
    table = census.loc[census["state"] == "starved", ["site", "unit"]].assign(starved_by="")
    if table.empty or not snapshot.inputs:
        return table
    trial = _Trial(replay, snapshot)
    reached, silent = trial.run()
    known = set(census.loc[census["state"] == "dead", "site"])
    dead = [site for site in silent if site in known]
    selecting = dict(trial.selected_after)
    open_units = table.index[_reached(reached, table)]
    alive = census[~census["state"].isin(("unobserved", "non_finite", "dead"))]
    table.loc[open_units, "starved_by"] = LOSS if (alive["grad_rms"] == 0).all() else ELSEWHERE
    rest = table.drop(open_units)
    for site in dead[:MOST]:
        opening = rest.index[_reached(trial.run({site})[0], rest)]
        table.loc[opening, "starved_by"] = site
        rest = rest.drop(opening)
    if len(rest) and len(dead) > 1:
        opening = rest.index[_reached(trial.run(dead)[0], rest)]
        for index in opening:
            own = trial.order.get(str(rest.at[index, "site"]), -1)
            behind = [name for name in dead if trial.order.get(name, 0) > own]
            table.at[index, "starved_by"] = "\n".join(behind or dead)
        rest = rest.drop(opening)
    if len(rest):
        opening = rest.index[_reached(trial.run(dead, fill=True)[0], rest)]
        table.loc[opening, "starved_by"] = ZEROS
        for index, site in rest.drop(opening)["site"].items():
            table.at[index, "starved_by"] = f"{SELECTION}: {selecting[site]}" if site in selecting else ""
    return table


class _Trial:
    """Passes with random gradients at the outputs.

    Attributes:
        order: site → its place among the calls of a forward.
        selected_after: site → name of a selecting function that was called behind it.
    """

    def __init__(self, replay: Replay, snapshot: Snapshot) -> None:
        inputs, count = [], 0
        for one in reversed(snapshot.inputs):
            inputs.append(one)
            count += input_count(one)
            if count >= INPUTS:
                break
        self._replay, self._snapshot = replay, Snapshot(snapshot.values, inputs)
        self._parameters = {name for name, _ in replay.model.named_parameters()}
        self.order: dict[str, int] = {}
        self.called: list[str] = []  # sites so far in the running pass
        self.selected_after: dict[str, str] = {}

    def run(
        self, opened: Collection[str] = (), *, fill: bool = False
    ) -> tuple[Mapping[str, np.ndarray], Sequence[str]]:
        """One trial.

        Args:
            opened: sites whose dead units are opened.
            fill: whether zeros among the parameters become small numbers.

        Returns:
            Site → rms of the gradient of each unit, and the sites with dead units.
        """
        windows = Windows("stream")
        taps = self._replay.taps(windows, gradients=True)

        def call(caller: Any, site: str, z: Tensor, layout: UnitLayout) -> None:
            self.order.setdefault(site, len(self.order))
            self.called.append(site)
            if site in opened:
                value = arranged(z, layout)
                axes = tuple(range(-value.ndim, 0))
                units = {axis % value.ndim for axis in layout.axes}
                others = [axis for axis in axes if axis % value.ndim not in units]
                silent = value.amax(others, keepdim=True) <= 0 if others else value <= 0
                value.copy_(torch.where(silent, OPEN, value))

        taps.on_call = call
        self.called.clear()
        values = self._filled() if fill else self._snapshot.values
        draw = torch.Generator().manual_seed(0)
        with self._replay.observing({}, lambda *_: None), _Selections(self), torch.enable_grad():
            taps.attach()
            try:
                for output in self._replay.outputs(Snapshot(values, self._snapshot.inputs), self._parameters):
                    parts = [t for t in _pytree.tree_leaves(output) if isinstance(t, Tensor)]
                    parts = [t for t in parts if t.requires_grad]
                    if parts:
                        given = [torch.randn(t.shape, generator=draw).to(t) for t in parts]
                        torch.autograd.backward(parts, given)
            finally:
                taps.detach()
        columns = windows.close(0, [], None)
        sites = {name: columns["site"] == name for name in dict.fromkeys(columns["site"].tolist())}
        gradients = {name: columns["grad_rms"][rows] for name, rows in sites.items()}
        silent = (columns["active"] == 0) & (columns["n"] > 0)
        return gradients, [name for name, rows in sites.items() if silent[rows].any()]

    def _filled(self) -> Values:
        draw = torch.Generator().manual_seed(1)
        return {
            name: torch.where(v == 0, 0.01 * torch.randn(v.shape, generator=draw).to(v), v)
            if name in self._parameters and v.is_floating_point()
            else v
            for name, v in self._snapshot.values.items()
        }


class _Selections(TorchFunctionMode):
    """Notes behind which sites something is selected."""

    def __init__(self, trial: _Trial) -> None:
        super().__init__()
        self._trial = trial

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in SELECTING:
            for site in self._trial.called:
                self._trial.selected_after.setdefault(site, name)
        return function(*args, **(kwargs or {}))


def _reached(gradients: Mapping[str, np.ndarray], units: pd.DataFrame) -> np.ndarray:
    """Which units (bool) a gradient reaches."""
    found = [
        site in gradients and unit < len(gradients[site]) and bool(gradients[site][unit] > 0)
        for site, unit in zip(units["site"], units["unit"], strict=True)
    ]
    return np.array(found, dtype=bool)
