"""Remedies on models and optimizers of other styles: what cannot be done right is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from other_nets import closed, net
from torch import Tensor, nn
from torch.nn.utils import prune

import harness
from harness.remedies import Auto, ContinualBackprop, bias_lift, clip_updates, redo

TORCH = tuple(map(int, torch.__version__.split(".")[:2]))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Pooled(nn.Module):
    """Its second layer reads units that a reduction has put together."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.pool = nn.Linear(8, 12), nn.Linear(6, 3), pool
        closed(self.a)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.pool(F.relu(self.a(x))))


@pytest.mark.parametrize(
    "pool",
    [
        lambda h: h.view(-1, 6, 2).amax(2),
        lambda h: h.view(-1, 2, 6).amax(1),
        lambda h: h.view(-1, 6, 2).mean(dim=-1),
        lambda h: torch.sum(h.view(-1, 2, 6), dim=(1,)),
        lambda h: h.view(-1, 6, 2).max(2).values,
    ],
)
def test_units_that_are_put_together_are_not_replaced(pool: Callable[[Tensor], Tensor]) -> None:
    model = Pooled(pool)
    with pytest.raises(ValueError, match="cannot be replaced: it goes through"):
        redo(model, None, torch.randn(32, 8))


def test_reductions_over_positions_are_followed_still() -> None:
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU())
    closed(model[0])  # type: ignore[arg-type]

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = model, nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).mean(1))

    whole, x = Mean(), torch.randn(16, 5, 8)
    before = whole(x)
    assert redo(whole, None, x)[0].units == 4
    assert torch.equal(whole(x), before)


@pytest.mark.parametrize("act", [redo, bias_lift])
def test_a_bias_that_two_layers_share_stays(act: Callable[..., object]) -> None:
    a, b = nn.Linear(8, 8), nn.Linear(8, 8)
    b.bias = a.bias
    closed(a)
    with pytest.raises(ValueError, match="shares"):
        act(nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), nn.Linear(8, 3)), None, torch.randn(16, 8))


@pytest.mark.parametrize("act", [redo, bias_lift])
def test_a_pruned_bias_is_refused(act: Callable[..., object]) -> None:
    model = net()
    prune.random_unstructured(model[0], "bias", 1)
    with pytest.raises(ValueError, match="bias"):
        act(model, None, torch.randn(16, 8))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bias", [-5.0, -300.0])
def test_lifted_units_open_in_every_precision(kind: torch.dtype, bias: float) -> None:
    torch.manual_seed(0)
    model, x = net().to(kind), torch.randn(128, 8).to(kind)
    closed(model[0], to=bias)  # type: ignore[arg-type]
    assert bias_lift(model, None, x)[0].units == 4
    assert ((model[:2](x) > 0).sum(0) > 0).all()


@pytest.mark.parametrize("delay", [5, 30])
def test_steps_that_move_nothing_do_not_shorten_the_later_ones(delay: int) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1), torch.randn(64, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step >= delay))
    clip_updates(optimizer)
    loss = torch.tensor(torch.nan)
    for _ in range(delay + 200):
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert loss < 1e-3


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_one_gradient_that_is_not_finite_does_not_end_the_training(kind: type[torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1), torch.randn(64, 4)
    optimizer = kind(model.parameters(), lr=0.05)  # type: ignore[call-arg]
    clip_updates(optimizer)
    loss = torch.tensor(torch.nan)
    for step in range(300):
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if step == 20:
            assert model.weight.grad is not None
            model.weight.grad.fill_(torch.nan)
        optimizer.step()
    assert loss < 0.01


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(input=F.relu(self.a(x)))


def test_continual_backprop_reads_layers_that_are_called_by_keyword() -> None:
    model, x = Keyword(), torch.randn(32, 8)
    remedy = ContinualBackprop(model, None, x, rate=0.5, maturity=1)
    events = []
    for _ in range(4):
        model(x)
        events += remedy.step()
    assert events[0].units > 0


@pytest.mark.parametrize("bad", [torch.full((4, 8), torch.nan), torch.zeros(0, 8)], ids=["nan", "empty"])
def test_a_bad_batch_does_not_reach_what_continual_backprop_writes(bad: Tensor) -> None:
    model, x = net(), torch.randn(32, 8)
    remedy = ContinualBackprop(model, None, x, rate=0.1, maturity=2)
    for batch in (bad, *[x] * 6):
        model(batch)
        remedy.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.skipif(TORCH < (2, 13), reason="compiled models call no hooks before torch 2.13")
def test_continual_backprop_does_the_same_in_a_compiled_model() -> None:
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model, x = net(), torch.randn(32, 8)
        remedy = ContinualBackprop(
            model, None, x, rate=0.1, maturity=2, generator=torch.Generator().manual_seed(1)
        )
        forward = torch.compile(model, backend="eager") if compiled else model
        for _ in range(6):
            forward(x)
            remedy.step()
        remedy.close()
        found.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*found)


def test_a_state_of_other_units_is_refused() -> None:
    x = torch.randn(4, 8)
    state = ContinualBackprop(net(12), None, x).state_dict()
    with pytest.raises(ValueError, match="expected a state of 20 units, but got one of 12"):
        ContinualBackprop(net(20), None, x).load_state_dict(state)


def test_the_rates_of_single_weights_stay() -> None:
    model, x = net(), torch.randn(32, 8)
    optimizer = torch.optim.Rprop(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    redo(model, optimizer, x)
    assert all((state["step_size"] > 0).all() for state in optimizer.state.values())


def test_a_rate_that_groups_share_as_a_tensor_is_lowered_once() -> None:
    torch.manual_seed(0)
    model, x = net(), torch.randn(64, 8)
    groups = [{"params": [*model[0].parameters()]}, {"params": [*model[2].parameters()]}]
    optimizer = torch.optim.Adam(groups, lr=torch.tensor(0.3), foreach=False)
    with harness.Recorder(model, optimizer=optimizer, census_every=2, evidence=True) as recorder:
        remedy = Auto(model, optimizer, recorder, table={"bias_init": (("lower_rate",),)})
        for _ in range(2):
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
        events = remedy.step(x)
    assert "in all / 3" in events[-1].detail, events
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.1, 0.1])


def test_acts_that_no_unit_allows_are_named() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 3)
            closed(self.a)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(x + self.a(x)))

    torch.manual_seed(0)
    model, x = Residual(), torch.randn(64, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=2, evidence=True) as recorder:
        remedy = Auto(model, optimizer, recorder)
        for _ in range(2):
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
        events = remedy.step(x)
    assert "no unit on which bias_lift" in events[0].detail, events


def test_a_layer_that_no_input_reached_is_not_dormant() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 3)
            self.d = nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            first = x[:, 0] > 0
            out = x.new_zeros(len(x), 3)
            out[first] = self.c(F.relu(self.a(x[first])))
            out[~first] = self.d(torch.relu(self.b(x[~first])))
            return out

    model, x = Experts(), torch.randn(32, 8).abs()
    before = model.d.weight.clone()
    with pytest.raises(ValueError, match="no input reached it"):
        redo(model, None, x)
    with pytest.raises(ValueError, match="no input reached it"):
        redo(net(), None, x[:0])
    assert torch.equal(model.d.weight, before)


@pytest.mark.parametrize("frozen", [[0], [2], [0, 2]])
def test_frozen_layers_stay_as_they_are(frozen: list[int]) -> None:
    model = net()
    for place in frozen:
        model[place].requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        redo(model, None, torch.randn(32, 8))
    if 0 in frozen:
        with pytest.raises(ValueError, match="the bias of the layer before it is frozen"):
            bias_lift(model, None, torch.randn(32, 8), sites=["1"])


def test_replicas_are_refused() -> None:
    class Group:
        def size(self) -> int:
            return 2

    model = net()
    replica = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(replica)
    replica.module = model
    replica.process_group = Group()
    with pytest.raises(ValueError, match="replicas of DistributedDataParallel"):
        bias_lift(replica, None, torch.randn(4, 8))
