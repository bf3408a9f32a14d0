"""A training of one's own that is killed at some moment and goes on with its state; in forks of this process.

Usage: killed_loop.py FOLDER MOMENT…; a moment is steps that were told, and a delay in milliseconds.
For each it leaves FOLDER/<k>/killed (the run as it was found), told (the last step that was told) and own (in
the end); FOLDER/whole/own is the training that nobody killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

import harness

STEPS, CENSUS, KEPT = 60, 5, 10


def train(folder: Path, say: int | None = None) -> None:
    """Train from the state that is kept in the folder, or from the beginning."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))
    model[2].bias.data.fill_(-0.3)  # pyright: ignore
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    own = {"optimizer": optimizer, "census_every": CENSUS, "output": folder, "name": "own"}
    recorder = harness.Recorder(model, config={"lr": 0.5}, **own)
    state, kept = folder / "state.pt", None
    if state.exists():
        kept = torch.load(state, weights_only=True)
        model.load_state_dict(kept["model"])
        recorder.load_state_dict(kept["recorder"])
    with recorder:
        for step in range(0 if kept is None else kept["step"], STEPS):
            x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
            if (step + 1) % KEPT == 0:
                parts = {"model": model.state_dict(), "recorder": recorder.state_dict(), "step": step + 1}
                torch.save(parts, folder / "part")
                (folder / "part").replace(state)
            if say is not None:
                os.write(say, bytes([step + 1]))
                time.sleep(0.001)


def forked(folder: Path, say: int | None = None) -> int:
    """Train in a process of its own."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        train(folder, say)
        status = 0
    finally:
        os._exit(status)


def killed_at(folder: Path, steps: int, delay: float) -> int:
    """Kill a training some milliseconds after it told of a step; the last step that it told."""
    reads, writes = os.pipe()
    child = forked(folder, writes)
    os.close(writes)
    told = 0
    while told < steps and (said := os.read(reads, 1)):
        told = said[0]
    time.sleep(delay / 1000)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while said := os.read(reads, 64):
        told = said[-1]
    os.close(reads)
    return told


if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    (root / "whole").mkdir(parents=True)
    train(root / "whole")  # in this process, so that the forks need not import and compile anew
    for k, (count, wait) in enumerate(zip(sys.argv[2::2], sys.argv[3::2], strict=True)):
        place = root / str(k)
        place.mkdir()
        last = killed_at(place, int(count), float(wait))
        shutil.copytree(place, root / f"{k} killed")
        (root / f"{k} told").write_text(str(last))
        assert os.waitstatus_to_exitcode(os.waitpid(forked(place), 0)[1]) == 0
