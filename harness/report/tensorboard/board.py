"""TensorBoard view of a run, from the rows of its tables: live during training, or rebuilt afterwards.

Tags: loss/…, accuracy/…, lr; dead/all, dead/<site>, starved/all; rate/<site> (histogram of the units'
activation rates); heat map (neuron × time); final/… of a finished run; verdict and causes (text); and the
run as a session of the HParams tab.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.config.identity import WITHOUT_EFFECT, WITHOUT_EFFECT_GROUPS
from harness.config.stored import flatten
from harness.detector.grid import Columns
from harness.detector.states import dead_share
from harness.report.tensorboard.events import EventFile, histogram
from harness.report.tensorboard.heat_map import heat_map, png
from harness.report.tensorboard.hparams import METRICS, session_end, session_start
from harness.report.tensorboard.layout import layout

STEP_TAGS = ("loss/train", "accuracy/train", "lr", "loss/test", "accuracy/test")
BINS = np.linspace(0.0, 1.0, 31)  # bins of rate histograms, fixed so that runs can be compared


class RunBoard:
    """Writes one event file into a run's folder (a Listener of `harness.training.run_logger`).

    Args:
        folder: folder of the run; event files of an earlier attempt are removed.
    """

    def __init__(self, folder: Path) -> None:
        self._file = EventFile(folder)
        self._file.write(0, layout())  # a run can be viewed on its own; TensorBoard merges equal layouts

    def tick(self, step: int) -> None:
        """Do nothing; there is nothing to show at every step."""

    def steps(self, rows: Columns) -> None:
        """Write the scalars of every step."""
        names = ("loss", "accuracy", "lr", "test_loss", "test_accuracy")
        columns = [np.asarray(rows[name], float).tolist() for name in names]
        for step, *values in zip(np.asarray(rows["step"]).tolist(), *columns, strict=True):
            tagged = zip(STEP_TAGS, values, strict=True)
            self._file.scalars(step, {tag: v for tag, v in tagged if v == v or tag == "loss/train"})

    def census(self, rows: Columns) -> None:
        """Write dead shares and rate histograms of a census."""
        evidence, site, state = (np.asarray(rows[c], object) for c in ("evidence", "site", "state"))
        observed = np.asarray(rows["unit"]) >= 0
        probe = evidence == "probe"
        seen = observed & (probe if probe.any() else True)
        if not seen.any():
            return
        step, rate = int(np.asarray(rows["step"])[0]), np.asarray(rows["rate"], float)
        scalars = {"dead/all": dead_share(state[seen])}
        stream = observed & (evidence == "stream")
        if stream.any():
            known = not np.isnan(dead_share(state[stream]))  # else the curve has a gap
            scalars["starved/all"] = float((state[stream] == "starved").mean()) if known else float("nan")
        values = []
        for name in dict.fromkeys(site[seen]):
            here = seen & (site == name)
            scalars[f"dead/{name}"] = dead_share(state[here])
            rates = rate[here]
            rates = rates[~np.isnan(rates)]
            if len(rates):
                values.append(histogram(f"rate/{name}", rates, BINS))
        self._file.scalars(step, scalars)
        self._file.write(step, values)
        self._file.flush()  # makes it visible now

    def maps(self, history: pd.DataFrame) -> None:
        """Write the neuron × time heat map for the Images tab."""
        found = heat_map(history) if len(history) else None
        if found is not None:
            places, words = found
            self._file.image("heat map", png(places), places.shape[::-1], int(history["step"].max()), words)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Write a text for the Text tab."""
        self._file.text(tag, markdown, step)

    def conclude(
        self,
        name: str,
        config: Mapping[str, Any],
        history: pd.DataFrame,
        status: Mapping[str, Any],
    ) -> None:
        """Write what is shown once a run has ended: its map, verdict, causes and row.

        Args:
            name: name of the run.
            config: dotted or nested configuration, shown in its row.
            history: its censuses.
            status: present or future content of `status.json`.
        """
        step = int(status.get("steps") or 0)
        self.maps(history)
        for tag, key in (("verdict", "verdict"), ("causes", "diagnosis")):
            if status.get(key):
                self.text(tag, str(status[key]), step)
        self.session(name, config, status, step)

    def session(self, name: str, config: Mapping[str, Any], status: Mapping[str, Any], step: int) -> None:
        """Write the run as a row of the HParams tab.

        Args:
            name: name of the run.
            config: dotted or nested configuration.
            status: present or future content of `status.json`.
            step: step of the final numbers.
        """
        state, final = str(status.get("state", "running")), status.get("final") or {}
        decisive = {
            key: value
            for key, value in flatten(dict(config)).items()
            if key not in WITHOUT_EFFECT and not key.startswith(WITHOUT_EFFECT_GROUPS)
        }
        self._file.write(0, session_start(name, decisive, state))
        if state == "finished":  # diverged or failed runs have no numbers, least of all 0 %
            values = {tag: final.get(key) for tag, (key, _) in METRICS.items()}
            self._file.scalars(step, {tag: float(v) for tag, v in values.items() if v is not None})
        if state != "running":
            self._file.write(step, session_end(state))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
