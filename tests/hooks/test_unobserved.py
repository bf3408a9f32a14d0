"""What cannot be seen is a row and a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from small_nets import hooks_of, x
from torch import nn

import harness
from harness.selftest.unseen import NeverCalled, Recurrent


@pytest.mark.parametrize(
    ("make", "shape", "site"),
    [
        (NeverCalled, (4, 6), "unused"),
        (lambda: Recurrent(nn.LSTM), (4, 3, 3), "rnn"),
        (lambda: Recurrent(nn.GRU), (4, 3, 3), "rnn"),
    ],
    ids=["never", "lstm", "gru"],
)
def test_unseen_sites_are_rows_and_warn_once(
    make: Callable[[], nn.Module], shape: tuple[int, ...], site: str
) -> None:
    model = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with harness.Recorder(model, census_every=1) as recorder:
            for _ in range(3):
                model(torch.randn(shape))
                recorder.step()
    mine = [str(w.message) for w in caught if site in str(w.message)]
    assert len(mine) == 1, [str(w.message) for w in caught]
    rows = recorder.history().query("site == @site")
    assert rows.step.tolist() == [1, 2, 3]
    assert set(rows.unit) == {-1}
    assert set(rows.n) == {0}
    assert set(rows.state) == {"unobserved"}
    assert rows.rate.isna().all()
    assert set(rows.rate_upper) == {1.0}
    (unseen,) = [s for s in recorder.sites if s.name == site]
    assert unseen.reason
    assert unseen.size == -1
    assert all(not s.reason for s in recorder.sites if s.name != site)


def test_a_scripted_module() -> None:
    inner = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(inner)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), scripted)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = harness.scan(model, x())
    mine = [w for w in caught if issubclass(w.category, UserWarning) and "2" in str(w.message)]
    assert len(mine) == 1, [str(w.message) for w in caught]
    rows = report.units[report.units.site.str.startswith("2")]
    assert rows.state.tolist() == ["unobserved"]
    assert rows.unit.tolist() == [-1]


def test_a_model_without_activations() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Softmax(-1))
    with pytest.raises(ValueError, match="activation"):
        harness.scan(model, x())

    def record() -> None:
        with harness.Recorder(model, census_every=1) as recorder:
            model(x())
            recorder.step()

    with pytest.warns(UserWarning, match="no activation was seen"):  # training goes on
        record()
    assert not any(value for _, kind, value in hooks_of(model) if kind != "forward")


@pytest.mark.parametrize("layer", [nn.Softmax(-1), nn.LogSoftmax(-1), nn.GLU()])
def test_softmax_and_glu_are_no_sites(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), layer)
    assert set(harness.scan(model, x()).units.site) == {"1"}
