"""Budget: how many inputs are replayed, so that an answer takes limited time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from harness.attribution.model_inputs import Inputs, copy_inputs, input_count
from harness.attribution.replay import Replay
from harness.attribution.snapshots import Snapshot

SECONDS = 15.0  # approximate time of all replays together
FEWEST = 32  # fewest inputs of a truncated batch
SOME = 128  # inputs per site when sites are replayed one by one; otherwise fewer sites


class Budget:
    """The cost of replays, measured on the first batch.

    Args:
        replay: replay of the model.
        snapshot: parameters and inputs; the first batch is run six times.
    """

    def __init__(self, replay: Replay, snapshot: Snapshot) -> None:
        batch = Snapshot(snapshot.values, snapshot.inputs[:1])
        count = max(1, sum(map(input_count, batch.inputs)))
        with replay.observing():
            self._plain = _seconds(lambda: replay.run(batch)) / count
        self._watched = _seconds(lambda: replay.watched(batch)) / count

    def share(self, snapshot: Snapshot, passes: float, watched: float = 0.0) -> float:
        """Share of the inputs that can be replayed in time; 1.0 for most networks.

        Args:
            snapshot: snapshot with the inputs.
            passes: planned number of forward passes over all inputs.
            watched: planned number of passes whose sites are observed.
        """
        inputs = sum(map(input_count, snapshot.inputs))
        return min(1.0, SECONDS / max(inputs * (self._plain * passes + self._watched * watched), 1e-9))

    def most_sites(self, passes: Sequence[int], inputs: int) -> int:
        """How many of some sites, in order, can be replayed one by one in half of the time.

        Args:
            passes: number of passes that each site takes.
            inputs: smallest number of inputs per pass.
        """
        return int((np.cumsum(passes) * self._watched * inputs <= SECONDS / 2).sum())


def _seconds(function: Callable[[], object]) -> float:
    """The shorter duration of a second and a third call: other processes may interrupt one of them."""
    function()
    durations = []
    for _ in range(2):
        begin = time.perf_counter()
        function()
        durations.append(time.perf_counter() - begin)
    return min(durations)


def first_of(inputs: Sequence[Inputs], share: float) -> list[Inputs]:
    """About a share of some batches: whole ones from the front, and at least a part of one."""
    if share >= 1.0:
        return list(inputs)
    count = share * sum(map(input_count, inputs))
    kept: list[Inputs] = []
    for args, kwargs in inputs:
        if kept and count < input_count((args, kwargs)):
            break
        part = copy_inputs(args, kwargs, max(FEWEST, int(count)))
        kept.append((args, kwargs) if part is None else part)
        count -= input_count(kept[-1])
    return kept
