"""Whole passes: births at sites whose layer cannot be called on its own.

A layer made of single parameters is not a module, so the whole model is run with the site's parameters
changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from harness.attribution.initial_state import births, constant_part, row_table, weight_summary
from harness.attribution.layer_inputs import summary
from harness.attribution.own_parameters import OwnParameters, Products
from harness.attribution.replay import Replay, unit_rows
from harness.attribution.snapshots import Snapshot, Values
from harness.graph.units import UnitLayout, arranged
from harness.recording.windows import WindowAccumulator

Own = Mapping[str, OwnParameters]


class OwnPasses:
    """Runs a model again with one site's parameters changed.

    Args:
        replay: replay of the model.
        start: parameters and inputs at the start.
        own: site → its own parameters.
    """

    def __init__(self, replay: Replay, start: Snapshot, own: Own) -> None:
        self._replay, self._start, self._own = replay, start, own
        self._then = _products(replay, start) if own else _Products({}, {})

    def births(self) -> pd.DataFrame:
        """The same table as `InitialState.units`."""
        sums = self._moments(self._start, set(self._own))
        for site, own in self._own.items():
            if site in sums:
                sums[site]["norm_mean"] = torch.zeros_like(sums[site]["z"])
                without = {name: torch.zeros_like(self._start.values[name]) for name in own.biases}
                sums[site]["bias"] = self._lost(site, sums[site], without)
                centred = {name: own.without_mean(name, self._start.values[name]) for name in own.weights}
                sums[site]["weight_mean"] = self._lost(site, sums[site], centred)
                sums[site]["constant"] = self._constant(site, own)
        return births(sums)

    def rows(self) -> list[pd.DataFrame]:
        """The same tables as `row_statistics`."""
        values, tables = self._start.values, []
        for site, own in self._own.items():
            matrix = own.matrix(values)
            weight = (
                None if matrix is None else own.rows(matrix, self._then.weights.get(matrix, values[matrix]))
            )
            biases = [own.rows(name, values[name]).mean(1) for name in own.biases]
            tables.append(row_table(site, weight, torch.stack(biases).sum(0) if biases else None))
        return tables

    def layers(self, now: Snapshot) -> dict[str, dict[str, Any]]:
        """Site → its columns of the table of layers."""
        then, there = self._then, _products(self._replay, now) if self._own else self._then
        table = {}
        for site, own in self._own.items():
            matrix = own.matrix(self._start.values)
            row: dict[str, Any] = {"layer": matrix, "source": own.source}
            if matrix is not None:
                weight = then.weights.get(matrix, self._start.values[matrix])
                latest = there.weights.get(matrix, now.values.get(matrix))
                row |= weight_summary(weight, own.rows(matrix, weight).shape[1], latest)
                row |= then.inputs.get(matrix, {})
                row |= {f"{name}_now": value for name, value in there.inputs.get(matrix, {}).items()}
            table[site] = row
        return table

    # --- inside -------------------------------------------------------------------------------------

    def _lost(self, site: str, sums: Mapping[str, Any], changed: Values) -> Tensor:
        """By how much a change of parameters lowers the sum of the pre-activation."""
        if not changed:
            return torch.zeros_like(sums["z"])
        snapshot = self._start._replace(values={**self._start.values, **changed})
        return sums["z"] - self._moments(snapshot, {site})[site]["z"]

    def _constant(self, site: str, own: OwnParameters) -> Tensor:
        """Sum of the pre-activation without its weights and biases if that is constant; else 0.

        A gain stays, as it may scale the constant; but 0 has no direction, if the weights are normalised.
        """
        matrix = own.matrix(self._start.values)
        several = [[matrix, *own.biases], list(own.axes)] if matrix is not None else [list(own.axes)]
        left: dict[str, Any] = {}
        for names in several:
            zeros = {name: torch.zeros_like(self._start.values[name]) for name in names}
            left = self._moments(self._start._replace(values={**self._start.values, **zeros}), {site})[site]
            if bool(torch.isfinite(left["z"]).all()):
                break
        mean = left["z"] / left["n"]
        spread = (left["zz"] / left["n"] - mean.square()).clamp_min(0).sqrt()
        constant = constant_part(mean.cpu().numpy(), spread.cpu().numpy())
        return torch.from_numpy(constant).to(mean) * left["n"]

    def _moments(self, snapshot: Snapshot, sites: set[str]) -> dict[str, dict[str, Any]]:
        """Site → number of rows, Σz and Σz² of its units."""
        sums: dict[str, dict[str, Any]] = {}

        def add(caller: Any, site: str, z: Tensor, layout: UnitLayout) -> None:
            if site in sites and z.numel():
                rows = unit_rows(arranged(z.detach(), layout), layout.axes).double()
                own = sums.setdefault(site, {"n": 0, "z": 0.0, "zz": 0.0})
                own["n"] += len(rows)
                own["z"], own["zz"] = own["z"] + rows.sum(0), own["zz"] + rows.square().sum(0)

        taps = self._replay.taps(WindowAccumulator("stream"))
        taps.counter.on_call = add
        with self._replay.observing(), taps.attached():
            self._replay.run(snapshot)
        return sums


class _Products(NamedTuple):
    """Name of a parameter → moments of its other factors, and the factor used in its place."""

    inputs: dict[str, dict[str, float]]
    weights: Values


def _products(replay: Replay, snapshot: Snapshot) -> _Products:
    """The products with parameters in the passes over a snapshot."""
    moments: dict[str, tuple[int, Any, Any]] = {}
    weights: Values = {}
    for inputs in snapshot.inputs:
        leaves: Values = {}
        one = Snapshot(snapshot.values, [inputs])
        products = Products(leaves, one)
        with replay.observing(), products:
            for _ in replay.outputs(one, (), leaves):
                pass
        weights = weights or products.weights
        for name, (n, total, squares) in products.moments.items():
            before = moments.get(name, (0, 0.0, 0.0))
            moments[name] = before[0] + n, before[1] + total, before[2] + squares
    return _Products({name: summary(*moment) for name, moment in moments.items()}, weights)
