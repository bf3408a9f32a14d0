"""The command line of sweeps, in this process."""

from __future__ import annotations

import pytest

from harness import cli

TINY = ["model.width=8", "model.depth=1", "train.max_steps=12", "record.tensorboard=false"]
SWEPT = [*TINY, "seed=range(3)", "optim.lr=0.1,0.5"]


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([*argv])
    assert isinstance(ended.value.code, int)
    return ended.value.code
