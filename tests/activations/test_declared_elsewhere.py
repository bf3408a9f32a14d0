"""Declared activations beside the counts: evidence, errors, copies, and what is taken back."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
from typing import Any

import declared_nets
import pytest
import torch
import torch.nn.functional as F
from declared_nets import (
    ROWS,
    STEPS,
    UNITS,
    JumpReLU,
    Net,
    Shifted,
    Steps,
    TopK,
    batches,
    check,
    selected,
    shrink,
    trained,
)
from torch import Tensor, nn

import harness
from harness.remedies import bias_lift


def test_evidence_and_remedies_know_of_it(declare: Any) -> None:
    """What replays weights leaves out gates that z alone does not tell; nothing false is said."""
    declare(TopK, open=selected)
    first = nn.Linear(3, UNITS)
    nn.init.constant_(first.bias[:3].detach(), -50.0)
    model = nn.Sequential(first, TopK(2), nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for x in batches():
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step(loss)
    assert "units dead" in str(recorder.diagnose())
    features = harness.feature_ranks(model, torch.cat(batches()))
    assert features.effective_rank.notna().all()
    with pytest.raises(ValueError, match="1 cannot be lifted: TopK is declared"):
        bias_lift(model, optimizer, torch.cat(batches()), sites=["1"])


def test_two_recorders_at_once(declare: Any) -> None:
    model = Net(declare(shrink, threshold=0.2))
    with (
        harness.Recorder(model, census_every=None) as one,
        harness.Recorder(model, census_every=None, per_call=True) as two,
    ):
        for x in batches():
            model(x).sum().backward()
            one.step()
            two.step()
    assert one.census().active.tolist() == two.census().active.tolist()
    assert set(one.census().site) == set(two.census().site) == {":shrink"}


def test_open_disturbs_nothing(declare: Any) -> None:
    """Neither random numbers nor what it writes into its z reach the training."""

    def rude(z: Tensor) -> Tensor:
        torch.rand(3)
        return z.add_(torch.randn_like(z)).relu_() > 0

    plain = trained(Net(Shifted()))
    for target, call in ((Shifted, Shifted()), (shrink, None)):
        act = declare(target, open=rude)
        model = Net(call or act)
        before = trained(copy.deepcopy(model))
        with harness.Recorder(model, census_every=None) as recorder:
            after = trained(model)
            recorder.step()
        assert all(map(torch.equal, before, after))
        assert recorder.census().n.tolist() == [ROWS * STEPS] * UNITS
        if target is Shifted:
            assert all(map(torch.equal, plain, after))


def test_what_a_gate_calls_is_no_part_of_the_model(declare: Any) -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.raw, self.soft = nn.Parameter(torch.zeros(UNITS)), nn.Softplus()

        def forward(self, z: Tensor) -> Tensor:
            return z * (z > self.soft(self.raw))

    declare(Raw, threshold=lambda module: F.relu(F.softplus(module.raw)))
    check(Net(Raw()), lambda act, z: z > F.softplus(act.raw), "act")
    declare(Raw, open=lambda z, module: F.relu(z) > module.soft(module.raw))
    check(Net(Raw()), lambda act, z: z.clamp(min=0) > F.softplus(act.raw), "act")


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        ({"open": lambda z: 1 / 0}, "open: it raised ZeroDivisionError"),
        ({"open": lambda z: z}, "open: expected a tensor of torch.bool, but it returned torch.float32"),
        ({"open": lambda z: True}, "open: expected a tensor of torch.bool, but it returned bool"),
        ({"open": lambda z: z[0] > 0}, "open: expected the shape of z"),
        ({"threshold": lambda module: module.nothing}, "threshold: it raised AttributeError"),
        ({"threshold": lambda module: "0"}, "threshold: expected a number or a tensor"),
        ({"threshold": lambda module: torch.zeros(3)}, "3 thresholds for 8 units"),
        ({"threshold": torch.zeros(3)}, "3 thresholds for 8 units"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_gate_that_fails_is_an_unobserved_row(declare: Any, gate: dict[str, Any], reason: str) -> None:
    declare(Shifted, **gate)
    model = Net(Shifted())
    with pytest.warns(UserWarning, match=r"act \(Shifted\) is unobserved"):
        report = harness.scan(model, torch.randn(ROWS, 3))
    assert report.units.state.tolist() == ["unobserved"]
    assert report.plan.unobserved[0].reason.startswith(reason)
    recorder = harness.Recorder(model, census_every=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with recorder:
            for x in batches():
                model(x).sum().backward()
                recorder.step()
    assert recorder.census().state.tolist() == ["unobserved"]


@pytest.mark.parametrize(
    ("target", "gate", "error", "message"),
    [
        (Shifted, {}, ValueError, "either threshold= or open=, but got neither"),
        (Shifted, {"threshold": 0, "open": lambda z: z > 0}, ValueError, "but got both"),
        (Shifted, {"threshold": "0"}, TypeError, "a number, a tensor or a function, but got str"),
        (Shifted, {"threshold": True}, TypeError, "but got bool"),
        (Shifted, {"threshold": float("nan")}, ValueError, "expected a number, but got nan"),
        (Shifted, {"threshold": torch.ones(3) > 0}, TypeError, r"but got torch\.bool"),
        (Shifted, {"threshold": torch.ones(0)}, ValueError, "empty"),
        (Shifted, {"open": 0.5}, TypeError, "open: expected a function of z, but got float"),
        (Shifted(), {"threshold": 0}, TypeError, "but got Shifted: declare its class"),
        (int, {"threshold": 0}, TypeError, "but got int"),
        ("relu", {"threshold": 0}, TypeError, "but got str"),
    ],
)
def test_wrong_declarations(target: Any, gate: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        harness.declare_activation(target, **gate)
    with pytest.raises(ValueError, match="expected a declared activation"):
        harness.undeclare_activation(Shifted)


def test_taken_back_nothing_is_left() -> None:
    forwards = vars(Steps)["forward"]
    harness.declare_activation(Steps, threshold=0)
    harness.declare_activation(Steps, threshold=1)
    harness.undeclare_activation(Steps)
    assert vars(Steps)["forward"] is forwards
    act = harness.declare_activation(shrink, threshold=0)
    assert harness.declare_activation(act, threshold=1) is act
    harness.undeclare_activation(act)
    assert act(torch.ones(1)) == shrink(torch.ones(1))
    with pytest.raises(ValueError, match="declared activation"):
        harness.undeclare_activation(act)


def test_a_result_that_is_thrown_away_is_said() -> None:
    code = "import harness\ndef act(z): return z\nharness.declare_activation(act, threshold=0)\n"
    with pytest.warns(UserWarning, match=r"assign it, as in lib\.act"):
        exec(code, {})
    gc.collect()


def test_a_model_whose_activation_is_not_declared() -> None:
    x = torch.randn(ROWS, 3)
    with pytest.warns(UserWarning, match=r"threshold.*harness\.declare_activation"):
        report = harness.scan(Net(lambda z: z * (z > 0)), x)
    assert report.units.state.tolist() == ["unobserved"]
    with pytest.raises(ValueError, match=r"harness\.declare_activation"):
        harness.scan(Net(lambda z: (z + z.abs()) / 2), x)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch 2.11
def test_models_can_be_copied_pickled_and_compiled(declare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    act = declare(shrink, threshold=0.2)
    monkeypatch.setattr(declared_nets, "shrink", act)
    declare(Shifted, threshold=0.3)
    declare(Steps, threshold=lambda z, threshold, width: threshold)
    assert pickle.loads(pickle.dumps(act)) is act
    x = torch.randn(ROWS, 3)
    for call in (act, Shifted(), JumpReLU()):
        model = Net(call)
        same = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        expected = model(x)
        assert all(torch.equal(other(x), expected) for other in (*same, compiled))


def test_a_function_named_like_one_of_torch(declare: Any) -> None:
    def relu(z: Tensor) -> Tensor:
        return z * (z > 0.5)

    report = harness.scan(Net(declare(relu, threshold=0.5)), torch.randn(ROWS, 3))
    (site,) = report.plan.sites
    assert site.activation == f"{__name__}.relu"
