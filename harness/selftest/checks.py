"""The checks of a case: a live Recorder and a scan, each compared with the slow truth."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from harness.attribution.recorder import Recorder
from harness.graph.plan import Site
from harness.recording.scan import scan
from harness.selftest.case import Case
from harness.selftest.compare import Difference, differences
from harness.selftest.truth import COLUMNS, Keep, TrueSite, true_scan, true_training


def built(case: Case, device: str = "cpu") -> Any:
    """The case's model, the same at every call."""
    torch.manual_seed(0)
    return case.make().to(device)


def inputs(case: Case, device: str = "cpu") -> list[Any]:
    """The case's batches, on the device."""
    return [x.to(device) for x in case.batches()]


def watched_training(case: Case, model: nn.Module, device: str = "cpu", census_every: int = 2) -> Recorder:
    """Train the model as specified by the case, under a Recorder."""
    optimizer = _optimizer(case, model)
    run = case.wrap(model)
    with Recorder(model, optimizer=optimizer, census_every=census_every, **case.recorder) as recorder:
        for i, x in enumerate(inputs(case, device)):
            with case.context(device):
                output = run(x)
            if optimizer is not None:
                case.loss(output).backward()
            if (i + 1) % case.accumulate:
                continue
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()
            recorder.step()
    return recorder


def live(case: Case, device: str = "cpu") -> list[Difference]:
    """Train a model under a Recorder and its twin by the slow truth; compare all censuses and weights."""
    model = built(case, device)
    twin = built(case, device)
    torch.manual_seed(1)
    true = true_training(
        twin,
        partial(_reference, case, device),
        case.sites,
        _optimizer(case, twin),
        inputs(case, device),
        case.loss,
        census_every=2,
        accumulate=case.accumulate,
    )
    torch.manual_seed(1)
    with _warnings() as spoken:
        recorder = watched_training(case, model, device)
    history = recorder.history()
    found = _same("columns", COLUMNS, list(history.columns))
    found += _same("evidence", ["stream"], sorted(set(history["evidence"])))
    found += differences(history, true)
    found += _by_construction(case.sites, history)
    found += _sites(case.sites, recorder.sites)
    found += _weights(model, twin, exact=device == "cpu")
    return found + _spoken(case, spoken)


def scanned(case: Case, device: str = "cpu", *, with_loss: bool = False) -> list[Difference]:
    """Scan in evaluation mode, with or without gradients."""
    model = built(case, device)
    twin = built(case, device)
    loss = case.loss if with_loss else None
    torch.manual_seed(1)  # lazy layers are initialised in the first forward
    true = true_scan(twin, partial(_reference, case, device), case.sites, inputs(case, device), loss)
    torch.manual_seed(1)
    with _warnings() as spoken, case.context(device):
        report = scan(
            model,
            inputs(case, device),
            loss=(lambda output, batch: case.loss(output)) if with_loss else None,
            **case.recorder,
        )
    units = report.units
    true["step"] = units["step"].iloc[0]
    found = differences(units, true, skip=["grad_norm"])
    seen = true[true["n"] > 0]
    share = float((seen["state"] == "dead").mean())
    if not abs(report.dead_fraction - share) <= 1e-12:
        found.append(Difference("dead_fraction", f"{share:.6g}", f"{report.dead_fraction:.6g}"))
    if not with_loss:
        for column in ("grad_rms", "grad_norm"):
            found += _same(column, 0, int(units[column].notna().sum()))
        found += _same("starved units", 0, int((units["state"] == "starved").sum()))
    return found + _spoken(case, spoken)


CHECKS: dict[str, Callable[[Case, str], list[Difference]]] = {
    "live": live,
    "scan": scanned,
    "scan with loss": partial(scanned, with_loss=True),
}


def checks_of(case: Case) -> list[str]:
    """The names of the checks that apply to a case."""
    return [name for name in CHECKS if case.train or name != "scan with loss"]


def _optimizer(case: Case, model: nn.Module) -> torch.optim.Optimizer | None:
    return torch.optim.SGD(model.parameters(), lr=0.05) if case.train else None


def _reference(case: Case, device: str, model: nn.Module, x: Any, keep: Keep) -> Tensor:
    with case.context(device):
        return case.reference(model, x, keep)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collects warnings about unobserved sites; other warnings are passed on."""
    spoken: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # raised by a checkpoint in a scan without gradients, which is not a mistake
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
        yield spoken
    for one in caught:
        if "is unobserved" in str(one.message):
            spoken.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _same(what: str, expected: Any, got: Any) -> list[Difference]:
    return [] if expected == got else [Difference(what, str(expected), str(got))]


def _spoken(case: Case, spoken: list[str]) -> list[Difference]:
    if case.quiet == (not spoken):
        return []
    return [Difference("warnings", "none" if case.quiet else "one", "; ".join(spoken) or "none")]


def _by_construction(sites: tuple[TrueSite, ...], history: pd.DataFrame) -> list[Difference]:
    found = []
    for site in sites:
        for step, census in history[history["site"] == site.name].groupby("step"):
            dead = set(census["unit"][census["state"] == "dead"])
            if not site.dead <= dead or dead & site.alive:
                expected = f"dead {sorted(site.dead)}, alive {sorted(site.alive)}"
                found.append(Difference(f"step {step}, {site.name}", expected, f"dead {sorted(dead)}"))
    return found


def _sites(true: tuple[TrueSite, ...], actual: tuple[Site, ...]) -> list[Difference]:
    known = {site.name: site for site in actual}
    found = _same(
        "order of sites", [s.name for s in true if s.size >= 0], [s.name for s in actual if s.size >= 0]
    )
    for site in true:
        one = known.get(site.name)
        if one is None:
            found.append(Difference(site.name, "a site", "none of that name"))
        else:
            found += _same(
                f"{site.name}: units, producer, a reason why it is not seen",
                (site.size, site.producer, site.size < 0),
                (one.size, one.single_producer, bool(one.reason)),
            )
    return found


def _weights(model: nn.Module, twin: nn.Module, *, exact: bool) -> list[Difference]:
    found = []
    for (name, a), b in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        rtol, atol = (0.0, 0.0) if exact else (1e-5, 1e-6)
        if not torch.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True):
            distance = f"differs by up to {float((a - b).abs().max()):.3g}"
            found.append(Difference(f"{name} after training", "as without a Recorder", distance))
    return found
