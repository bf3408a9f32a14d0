"""Activations of one's own are counted as declared: in training and evaluation, against a count by hand."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import harness
from harness.remedies import bias_lift

UNITS, ROWS, STEPS = 8, 16, 20
Truth = Callable[[Any, Tensor], Tensor]  # (activation, z) → which gates are open


class Steps(torch.autograd.Function):
    """JumpReLU with a learned threshold, as sparse autoencoders have it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.width = width
        return z * (z > threshold)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.width / 2
        return gradients[0] * (z > threshold), -(threshold / ctx.width * near * gradients[0]).sum(0), None


class NewStyle(torch.autograd.Function):
    """A function whose forward has no context."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return z * (z > 0.25)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (z,) = ctx.saved_tensors
        return gradients[0] * (z > 0.25)


class JumpReLU(nn.Module):
    """Its threshold is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.log_threshold = nn.Parameter(torch.linspace(-3, 0.3, UNITS))

    def forward(self, z: Tensor) -> Tensor:
        return Steps.apply(z, self.log_threshold.exp(), 0.5)  # type: ignore[return-value]


class TopK(nn.Module):
    """Hands on the k largest of each row."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, z: Tensor) -> Tensor:
        values, places = z.topk(self.k, -1)
        return torch.zeros_like(z).scatter(-1, places, values)


class Shifted(nn.Module):
    """ReLU with its kink elsewhere; what it calls inside is its own."""

    def forward(self, z: Tensor) -> Tensor:
        return F.relu(z - 0.3) + 0.3


def selected(z: Tensor, module: Any) -> Tensor:
    return torch.zeros_like(z, dtype=torch.bool).scatter(-1, z.topk(module.k, -1).indices, True)


def shrink(z: Tensor, by: float = 0.2) -> Tensor:
    return F.relu(z - by)


@torch.library.custom_op("harness_tests::jump", mutates_args=())
def jump(z: Tensor) -> Tensor:
    """A custom operator."""
    return z * (z > 0.1)


def _jump_backward(ctx: Any, gradient: Tensor) -> Tensor:
    return gradient


jump.register_autograd(_jump_backward)


class Net(nn.Module):
    """One hidden layer with a dead unit; `call` is the activation."""

    def __init__(self, call: Callable[..., Any], *, apart: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.head = nn.Linear(3, UNITS), nn.Linear(UNITS, 1)
        self.act = call if isinstance(call, nn.Module) else None
        self.call: Callable[..., Any] = call
        self.checkpointed = apart
        nn.init.constant_(self.fc.bias[:1].detach(), -50.0)

    def hidden(self, x: Tensor) -> Tensor:
        z = self.fc(x)
        return self.act(z) if self.act is not None else self.call(z)

    def forward(self, x: Tensor) -> Tensor:
        h: Any = checkpoint(self.hidden, x, use_reentrant=False) if self.checkpointed else self.hidden(x)
        return self.head(h)


@pytest.fixture
def declare() -> Iterator[Callable[..., Any]]:
    """`harness.declare_activation`, taken back after the test."""
    done: list[Any] = []

    def declare(target: Any, **gate: Any) -> Any:
        done.append(harness.declare_activation(target, **gate))
        return done[-1]

    yield declare
    for target in dict.fromkeys(done):
        harness.undeclare_activation(target)


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(ROWS, 3, generator=generator) for _ in range(STEPS)]


def check(model: Net, truth: Truth, site: str) -> None:
    """Scan and training both count what `truth` says."""
    x = torch.cat(batches())
    with torch.no_grad():
        expected = truth(model.act, model.fc(x)).sum(0)
    report = harness.scan(model, x)
    assert set(report.units.site) == {site}
    assert report.units.active.tolist() == expected.tolist()
    assert set(report.units.n) == {ROWS * STEPS}
    assert report.units.state[0] == "dead"
    assert [(s.name, s.producers) for s in report.plan.sites] == [(site, ("fc",))]
    optimizer, counted = torch.optim.SGD(model.parameters(), lr=0.01), torch.zeros(UNITS, dtype=torch.int64)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for x in batches():
            with torch.no_grad():
                counted += truth(model.act, F.linear(x, model.fc.weight, model.fc.bias)).sum(0)
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
        census = recorder.census()
    assert set(census.site) == {site}
    assert census.active.tolist() == counted.tolist()
    assert set(census.n) == {ROWS * STEPS}
    assert census.grad_rms.notna().all()
    assert census.state[0] == "dead"


def test_a_module_with_a_learned_threshold(declare: Any) -> None:
    declare(JumpReLU, threshold=lambda module: module.log_threshold.exp())
    check(Net(JumpReLU()), lambda act, z: z > act.log_threshold.exp(), "act")


def test_a_module_with_a_number(declare: Any) -> None:
    declare(Shifted, threshold=0.3)
    check(Net(Shifted()), lambda act, z: z > 0.3, "act")


def test_topk_of_a_module_with_its_own_k(declare: Any) -> None:
    declare(TopK, open=selected)
    check(Net(TopK(3)), lambda act, z: selected(z, act), "act")


def test_open_of_z_alone(declare: Any) -> None:
    declare(Shifted, open=lambda z: z.abs() > 0.7)
    model = Net(Shifted())
    x = torch.cat(batches())
    assert harness.scan(model, x).units.active.tolist() == (model.fc(x).abs() > 0.7).sum(0).tolist()


@pytest.mark.parametrize("name", ["threshold", "open"])
def test_an_autograd_function(declare: Any, name: str) -> None:
    """Its arguments tell the gate."""
    is_open: Any = (lambda z, threshold, width: z > threshold) if name == "open" else None
    threshold: Any = (lambda z, threshold, width: threshold) if name == "threshold" else None
    declare(Steps, threshold=threshold, open=is_open)
    check(Net(JumpReLU()), lambda act, z: z > act.log_threshold.exp(), "act:Steps")


def test_apply_stands_for_its_function(declare: Any) -> None:
    apply = NewStyle.apply
    declare(apply, threshold=0.25)
    check(Net(apply), lambda act, z: z > 0.25, ":NewStyle")


def test_an_operator(declare: Any) -> None:
    declare(jump, threshold=0.1)
    check(Net(jump), lambda act, z: z > 0.1, ":jump")


@pytest.mark.parametrize("spelling", ["packet", "overload"])
def test_an_operator_as_torch_names_it(declare: Any, spelling: str) -> None:
    packet = torch.ops.harness_tests.jump
    declare(packet, threshold=0.1)
    check(Net(packet if spelling == "packet" else packet.default), lambda act, z: z > 0.1, ":jump")


def test_a_part_that_is_an_exported_program(declare: Any) -> None:
    declare(jump, threshold=0.1)
    part: Any = torch.export.export(nn.Sequential(nn.Linear(3, UNITS)), (torch.randn(ROWS, 3),)).module()
    layer = nn.Linear(3, UNITS)
    layer.load_state_dict({n.removeprefix("0."): p for n, p in part.state_dict().items()})
    x = torch.randn(ROWS, 3)
    model = nn.Sequential(part, Wrapped(jump))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = harness.scan(model, x).units
    assert rows.active.tolist() == (layer(x) > 0.1).sum(0).tolist()


class Wrapped(nn.Module):
    def __init__(self, call: Any) -> None:
        super().__init__()
        self.call = call

    def forward(self, z: Tensor) -> Tensor:
        return self.call(z)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_python_function(declare: Any, checkpointed: bool) -> None:
    act = declare(shrink, threshold=0.2)
    check(Net(act, apart=checkpointed), lambda act, z: z > 0.2, ":shrink")


def test_a_python_function_called_by_name_with_other_arguments(declare: Any) -> None:
    act = declare(shrink, threshold=lambda z, by: torch.full((UNITS,), by))
    check(Net(lambda z: act(z=z, by=0.4)), lambda act, z: z > 0.4, ":shrink")


def test_a_partial_and_a_lambda(declare: Any) -> None:
    check(Net(declare(functools.partial(shrink, by=0.4), threshold=0.4)), lambda act, z: z > 0.4, ":shrink")
    check(Net(declare(lambda z: z * (z > 1), threshold=1)), lambda act, z: z > 1, ":lambda")


def test_decorators(declare: Any) -> None:
    @harness.declare_activation(threshold=0.5)
    def gated(z: Tensor) -> Tensor:
        return torch.where(z > 0.5, z, 0.0)

    @harness.declare_activation(open=lambda z: z > 0.5)
    class Gated(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.where(z > 0.5, z, 0.0)

    assert gated.__name__ == "gated"
    check(Net(gated), lambda act, z: z > 0.5, ":gated")
    check(Net(Gated()), lambda act, z: z > 0.5, "act")
    harness.undeclare_activation(gated)
    harness.undeclare_activation(Gated)


def test_a_tensor_with_a_value_for_each_unit(declare: Any) -> None:
    values = torch.linspace(-0.5, 0.5, UNITS)
    values[0] = 0
    declare(Shifted, threshold=values)
    check(Net(Shifted()), lambda act, z: z > values, "act")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_thresholds_of_other_types(declare: Any, kind: torch.dtype) -> None:
    declare(Shifted, threshold=torch.ones(UNITS, 1, dtype=kind))
    check(Net(Shifted()), lambda act, z: z > 1, "act")


def test_channels_of_images(declare: Any) -> None:
    thresholds = torch.linspace(-0.2, 0.2, 5)
    for gate in ({"threshold": thresholds}, {"open": lambda z: z > thresholds.view(-1, 1, 1)}):
        declare(Shifted, **gate)
        model = nn.Sequential(nn.Conv2d(2, 5, 3), Shifted())
        x = torch.randn(4, 2, 6, 6)
        rows = harness.scan(model, x).units
        expected = (model[0](x) > thresholds.view(-1, 1, 1)).sum((0, 2, 3))
        assert rows.active.tolist() == expected.tolist()
        assert set(rows.n) == {4 * 16}


def test_a_known_activation_can_be_declared_anew(declare: Any) -> None:
    declare(nn.ReLU, threshold=0.5)
    check(Net(nn.ReLU()), lambda act, z: z > 0.5, "act")
    declare(nn.ReLU, threshold=0.25)
    check(Net(nn.ReLU()), lambda act, z: z > 0.25, "act")
    harness.undeclare_activation(nn.ReLU)
    check(Net(nn.ReLU()), lambda act, z: z > 0, "act")
    declare(nn.ReLU, threshold=0.5)


def test_a_function_of_torch(declare: Any) -> None:
    declare(torch.sinc, threshold=0.5)
    check(Net(torch.sinc), lambda act, z: z > 0.5, ":sinc")
    declare(F.relu, threshold=0.5)
    check(Net(F.relu), lambda act, z: z > 0.5, ":torch.nn.functional.relu")


def test_a_subclass_with_the_same_forward_is_declared_too(declare: Any) -> None:
    class Same(Shifted):
        pass

    class Other(Shifted):
        def forward(self, z: Tensor) -> Tensor:
            return F.relu(z)

    declare(Shifted, threshold=0.3)
    check(Net(Same()), lambda act, z: z > 0.3, "act")
    check(Net(Other()), lambda act, z: z > 0, "act:relu")


class Indexed(nn.Module):
    """Its pre-activation is not the first argument."""

    def forward(self, places: Tensor, by: float, z: Tensor) -> Tensor:
        return z * (z > by)


@pytest.mark.parametrize("by_name", [False, True])
def test_the_first_tensor_of_floats_is_the_pre_activation(declare: Any, by_name: bool) -> None:
    declare(Indexed, threshold=0.5)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(3, UNITS), Indexed()

        def forward(self, x: Tensor) -> Tensor:
            z, places = self.fc(x), torch.arange(3)
            return self.act(places, by=0.5, z=z) if by_name else self.act(places, 0.5, z)

    model, x = Whole(), torch.cat(batches())
    assert harness.scan(model, x).units.active.tolist() == (model.fc(x) > 0.5).sum(0).tolist()


def test_a_sparse_autoencoder_with_selection_over_the_batch(declare: Any) -> None:
    class BatchTopK(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z * over_the_batch(z)

    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.encoder, self.decoder = nn.Parameter(torch.randn(16, 32) / 4), nn.Linear(32, 16)
            self.bias, self.act = nn.Parameter(torch.zeros(32)), BatchTopK()
            self.bias.data[:6] = -50

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.act(x @ self.encoder + self.bias))

    def over_the_batch(z: Tensor) -> Tensor:
        return z >= z.flatten().topk(3 * len(z)).values[-1]

    declare(BatchTopK, open=over_the_batch)
    model, counted = Autoencoder(), torch.zeros(32, dtype=torch.int64)
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(STEPS):
            x = torch.randn(4, 7, 16)
            counted += over_the_batch(x @ model.encoder + model.bias).sum((0, 1))
            model(x).square().mean().backward()
            recorder.step()
        census = recorder.census()
    assert census.active.tolist() == counted.tolist()
    assert set(census.n) == {28 * STEPS}
    assert set(census.state[:6]) == {"dead"}
    assert recorder.sites[0].producers == ("encoder",)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_module_that_a_checkpoint_recomputes(declare: Any, checkpointed: bool) -> None:
    declare(TopK, open=selected)
    check(Net(TopK(2), apart=checkpointed), lambda act, z: selected(z, act), "act")


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


def trained(model: Net) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.manual_seed(3)
    for _ in range(STEPS):
        noisy = torch.randn(ROWS, 3) + F.dropout(torch.ones(ROWS, 3))
        model(noisy).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in model.parameters()]


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


def test_models_can_be_copied_pickled_and_compiled(declare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    act = declare(shrink, threshold=0.2)
    monkeypatch.setitem(globals(), "shrink", act)
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
