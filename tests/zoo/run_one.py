"""Models checked in this process: `python -m tests.zoo.run_one NAME…` prints a line of JSON for each."""

from __future__ import annotations

import gc
import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import harness
from harness.hooks import forwards
from tests.zoo.check import compared, digest
from tests.zoo.models import Animal, run, zoo
from tests.zoo.oracle import Oracle

STEPS = 5
WARM_UP = 1  # so that the third step and the fifth are counted without a trace
ALLOWED = re.compile(r"is unobserved: ")
Ran = tuple[nn.Module, list[str], list[bytes], Any]


def trained(animal: Animal, attach: Callable[[nn.Module, torch.optim.Optimizer], Any] | None = None) -> Ran:
    """The model after its steps, its losses, all its state as bytes, and what `attach` left.

    `attach` makes a context around the steps, that of an observer: its `forward()` is a context, too.
    """
    torch.manual_seed(0)
    model = animal.build()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    torch.manual_seed(1)
    losses, left = [], None
    with attach(model, optimizer) if attach else nullcontext() as observer:
        for _ in range(STEPS):
            batch = animal.batch()
            optimizer.zero_grad()
            with observer.forward() if observer else nullcontext():
                loss = animal.loss(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(float(loss).hex())
            if observer:
                observer.step()
        left = observer.close() if observer else None
    return model, losses, state(model, optimizer), left


def state(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> list[bytes]:
    """Parameters, gradients, buffers, momenta and the generator, bit by bit."""
    found: list[Tensor | None] = [torch.get_rng_state(), *model.buffers()]
    for parameter in model.parameters():
        found += [parameter.detach(), parameter.grad]
    if optimizer:
        found += [s.get("momentum_buffer") for s in optimizer.state.values()]
    return [
        t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if t is not None else b""
        for t in found
    ]


class Truthful:
    """The oracle in the observer's place."""

    def __init__(self, animal: Animal, model: nn.Module) -> None:
        self.oracle = Oracle(model, animal.axis, animal.slices)

    def __enter__(self) -> Truthful:
        return self

    def __exit__(self, *error: object) -> None: ...

    def forward(self) -> AbstractContextManager[None]:
        return self.oracle.forward()

    def step(self) -> None: ...

    def close(self) -> Any:
        return self.oracle.truth


class Recorded:
    """A Recorder in the observer's place; what it leaves is its table and the kind of each site."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.recorder = harness.Recorder(model, optimizer=optimizer, census_every=None)

    def __enter__(self) -> Recorded:
        self.recorder.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.recorder.__exit__(*error)

    def forward(self) -> AbstractContextManager[None]:
        return nullcontext()

    def step(self) -> None:
        self.recorder.step()

    def close(self) -> Any:
        return self.recorder.census(), {s.name: s.activation for s in self.recorder.sites}


def training(animal: Animal) -> tuple[dict[str, Any], Any]:
    """Training with a Recorder against training without, and its census against the oracle."""
    plain_said, (plain, losses, after, _) = heard(lambda: trained(animal))
    _, true_losses, true_after, truth = trained(animal, lambda model, _: Truthful(animal, model))
    assert (losses, after) == (true_losses, true_after), "the oracle itself changes the training"
    said, (model, seen_losses, seen_after, (units, kinds)) = heard(lambda: trained(animal, Recorded))
    found = compared(truth, units, kinds, animal.exempt)
    found["problems"] += warned(said, plain_said)
    if losses != seen_losses:
        found["problems"].append("losses differ from those of training unobserved")
    if after != seen_after:
        found["problems"].append("parameters, gradients, buffers or generator differ after training")
    if hooks(plain) != hooks(model):
        found["problems"].append("hooks are left behind")
    found["finite"] = all(float.fromhex(loss) - float.fromhex(loss) == 0 for loss in losses)
    return found, units


def scanning(animal: Animal) -> tuple[dict[str, Any], Any]:
    """A scan of one batch against the oracle in evaluation mode; the model is the same before and after."""
    torch.manual_seed(0)
    model = animal.build()
    model.train()
    torch.manual_seed(1)
    batch = animal.batch()
    with torch.no_grad():
        run(model.eval(), batch)  # some models of Transformers hang hooks of their own on their first call
    model.train()
    next(iter(model.children())).eval()  # a flag that a scan has to put back
    modes = [m.training for m in model.modules()]
    torch.manual_seed(2)
    before, hooked = state(model), hooks(model)
    said, report = heard(lambda: harness.scan(model, [batch]))
    found: dict[str, Any] = {"problems": []}
    if before != state(model) or modes != [m.training for m in model.modules()]:
        found["problems"].append("the model is not as it was before the scan")
    if hooks(model) != hooked:
        found["problems"].append("hooks are left behind")
    model.eval()
    oracle = Oracle(model, animal.axis, animal.slices)
    torch.manual_seed(2)
    plain_said, _ = heard(lambda: evaluated(oracle, model, batch))
    kinds = {s.name: s.activation for s in getattr(report, "sites", ())}
    result = compared(oracle.truth, report.units, kinds, animal.exempt)
    result["problems"] += found["problems"] + warned(said, plain_said)
    return result, report.units


def warned(said: Collection[str], without: Collection[str]) -> list[str]:
    """What was warned of under observation alone.

    Exempt are what is true of reparametrised layers, and guessed axes, which the oracle judges.
    """
    true = ("grad_norm is not known", "is a guess")
    more = (text for text in said if text not in without and not any(part in text for part in true))
    return [f"warns: {text}" for text in more]


def evaluated(oracle: Oracle, model: nn.Module, batch: Any) -> None:
    with torch.no_grad(), oracle.forward():
        run(model, batch)


def hooks(model: nn.Module) -> int:
    """How many hooks the model's modules and parameters carry."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


def heard(work: Callable[[], Any]) -> tuple[list[str], Any]:
    """What `work` returns, and the warnings it gave but those that are allowed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    texts = dict.fromkeys(str(w.message) for w in caught)
    return [t for t in texts if not ALLOWED.search(t)], result


def report(name: str) -> dict[str, Any]:
    """Everything found out about one model."""
    began, animal = time.perf_counter(), zoo()[name]
    warm_up, forwards.WARM_UP = forwards.WARM_UP, WARM_UP
    line: dict[str, Any] = {"model": name, "problems": 0}
    tables = []
    for part, check in (("train", training), ("scan", scanning)):
        try:
            line[part], units = check(animal)
            tables.append(units)
        except Exception as error:
            line[part] = {"problems": [f"raises {type(error).__name__}: {str(error)[:300]}"]}
        line["problems"] += len(line[part]["problems"])
        gc.collect()
    forwards.WARM_UP = warm_up
    line["digest"] = digest(*tables) if tables else ""
    line["seconds"] = round(time.perf_counter() - began, 2)
    return line


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    failed = 0
    for name in names:
        line = report(name)
        failed += bool(line["problems"])
        print(json.dumps(line), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
