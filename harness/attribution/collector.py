"""Evidence: what a cause of death needs, gathered while a model trains and asked at the end.

Gathering is cheap: a dozen scalars a step (`vitals`), and what must be remembered (`keepsakes`). The
questions (`counterfactual`, `birth`) are put once per report. The answers are three tables, from which
`harness.attribution.causes` tells the causes without the model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import nn
from torch.optim import Optimizer

from harness.attribution.counterfactual import Mixer, shapley
from harness.attribution.evidence import PLAYERS, Evidence
from harness.attribution.initial_state import PARTS, Births, weights_of
from harness.attribution.layers import layers_of
from harness.attribution.replay import Layer, Moment, Passes
from harness.attribution.snapshots import Keepsakes
from harness.attribution.step_metrics import Vitals
from harness.hooks.sites import Site, plain_name
from harness.hooks.taps import Taps


class Witness:
    """Gathers the evidence of one model's training.

    Args:
        model: the model.
        optimizers: those that step it.
        taps: through which it is observed: they know the gates.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer], taps: Taps) -> None:
        self._model, self._taps = _inside(model), taps
        self._vitals = Vitals(self._model, optimizers)
        self._kept = Keepsakes(self._model)
        self._attached = False
        self._steps = 0

    def attach(self) -> None:
        """Begin."""
        self._attached = True
        self._vitals.attach()
        self._kept.attach()

    def detach(self) -> None:
        """Remove every hook."""
        self._attached = False
        self._vitals.detach()
        self._kept.detach()

    def step(self, loss: Any) -> None:
        """An optimizer step is over; the first ones may be all there is before a divergence."""
        self._vitals.step(loss)
        self._steps += 1
        if self._steps & (self._steps - 1) == 0:
            self._kept.census()

    def census(self) -> None:
        """A window is closed."""
        self._kept.census()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {"steps": self._steps, "vitals": self._vitals.state_dict(), "kept": self._kept.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue."""
        self._steps = int(state["steps"])
        self._vitals.load_state_dict(state["vitals"])
        self._kept.load_state_dict(state["kept"])

    def evidence(self, sites: Sequence[Site], asked: Collection[str]) -> Evidence:
        """Put the questions.

        Args:
            sites: those that were observed.
            asked: names of those whose units' shares are wanted, the costly part.
        """
        attached = self._attached
        self.detach()  # these passes are no part of the training
        try:
            with self._taps.paused():
                return self._asked(sites, asked)
        finally:
            if attached:
                self.attach()

    # --- inside -------------------------------------------------------------------------------------

    def _asked(self, sites: Sequence[Site], asked: Collection[str]) -> Evidence:
        steps = self._vitals.frame()
        if not self._kept.asked_now():
            return Evidence(steps, _units(), _layers())
        then = Moment(self._kept.start, self._kept.first_inputs)
        now = Moment(self._kept.latest or self._kept.start, self._kept.latest_inputs)
        passes = Passes(self._model, self._modes())
        layers = layers_of(passes, sites, self._taps.gates, then)
        births, after = Births(passes, then, layers), Births(passes, now, layers)
        values: dict[str, Any] = {}
        if asked:
            wanted = {site: layer for site, layer in layers.items() if site in asked}
            values = Mixer(passes, then, now, self._decayed()).values(wanted)
        return Evidence(
            steps, _units(births.units(), values), self._table(sites, passes, layers, births, after)
        )

    def _table(
        self,
        sites: Sequence[Site],
        passes: Passes,
        layers: Mapping[str, Layer],
        births: Births,
        after: Births,
    ) -> pd.DataFrame:
        inputs, inputs_now = births.inputs(), after.inputs()
        rows = []
        for depth, site in enumerate(sites):
            row: dict[str, Any] = {"site": site.name, "depth": depth, "units": site.size}
            if site.name in layers:
                first = layers[site.name].names[0]
                row |= weights_of(first, passes.modules[first], self._kept.start, self._kept.latest)
            row |= inputs.get(site.name, {})
            row |= {f"{name}_now": value for name, value in inputs_now.get(site.name, {}).items()}
            rows.append(row)
        return _layers(pd.DataFrame(rows))

    def _decayed(self) -> dict[str, Any]:
        moved = self._vitals.decayed
        return {name: moved[id(p)] for name, p in self._model.named_parameters() if id(p) in moved}

    def _modes(self) -> dict[str, bool]:
        return {
            name: self._kept.modes.get(plain_name(name), module.training)
            for name, module in self._model.named_modules()
        }


def _inside(model: nn.Module) -> nn.Module:
    """The module inside the wrappers of compile and data parallelism."""
    for name in ("_orig_mod", "module"):
        inner = getattr(model, name, None)
        if (
            isinstance(inner, nn.Module)
            and len(list(model.children())) == 1
            and not list(model.parameters(recurse=False))
        ):
            return _inside(inner)
    return model


LAYER_COLUMNS = ("weight_z", "gain", "growth", "input_rms", "input_mean", "off_centre")
NOW = ("input_rms_now", "input_mean_now", "off_centre_now")


def _layers(table: pd.DataFrame | None = None) -> pd.DataFrame:
    found = pd.DataFrame(columns=pd.Index(["site", "depth", "units"])) if table is None else table
    columns = ["site", "depth", "units", *LAYER_COLUMNS, *NOW]
    return found.reindex(columns=pd.Index(columns))


def _units(
    births: pd.DataFrame | None = None,
    values: Mapping[str, Mapping[frozenset[str], np.ndarray]] | None = None,
) -> pd.DataFrame:
    frames = [] if births is None else [births]
    shares = []
    for site, value in (values or {}).items():
        players = [p for p in PLAYERS if any(p in coalition for coalition in value)]
        share = shapley(value, players)
        then, now = value[frozenset()], value[frozenset(players)]
        columns = {p: share.get(p, np.zeros(len(then))) for p in PLAYERS}
        shares.append(
            pd.DataFrame(
                {"site": site, "unit": np.arange(len(then)), "rate_then": then, "rate_now": now, **columns}
            )
        )
    if shares:
        frames.append(pd.concat(shares, ignore_index=True))
    table = frames[0] if frames else pd.DataFrame(columns=pd.Index(["site", "unit"]))
    for frame in frames[1:]:
        table = table.merge(frame, on=["site", "unit"], how="outer", sort=False)
    columns = [
        "site",
        "unit",
        *[f"birth_{part}" for part in PARTS],
        "spread",
        "rate_then",
        "rate_now",
        *PLAYERS,
    ]
    return table.reindex(columns=pd.Index(columns))
