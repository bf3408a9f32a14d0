"""ReDo: exactly its recipe, on whatever can be followed; a clear refusal of the rest."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import NETS, mlp, trained
from torch import Tensor, nn

import harness
from harness import remedies
from harness.remedies import TorchOptimizerState, bias_lift, redo, wire
from harness.remedies.initializers import make_draw
from harness.remedies.recycle import recycle

OPTIMIZERS = [
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.Adam, {}),
    (torch.optim.AdamW, {"amsgrad": True}),
]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETS)
def test_with_tau_0_no_output_changes_by_a_bit(name: str, seed: int, training: bool) -> None:
    model, optimizer, x = trained(name, seed, torch.optim.Adam)
    model.train(training)

    def output() -> Tensor:
        twin = copy.deepcopy(model)
        torch.manual_seed(5)
        with torch.no_grad():
            return twin(x)

    weights = {n: p.clone() for n, p in model.named_parameters()}
    before = output()
    acts = redo(model, optimizer, x, generator=torch.Generator().manual_seed(seed))
    assert sum(act.units for act in acts) > 0
    assert torch.equal(output(), before)
    changed = [n for n, p in model.named_parameters() if not torch.equal(p, weights[n])]
    assert changed
    assert [act.site for act in acts] == [site for site in NETS[name][2] if site in {a.site for a in acts}]
    again = redo(model, optimizer, x)  # new units fire, nearly all of them
    assert sum(act.units for act in again) < sum(act.units for act in acts)


@pytest.mark.parametrize("name", NETS)
def test_the_wiring_is_that_of_the_forward_pass(name: str) -> None:
    made, shape, sites = NETS[name]
    model = made()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    wiring = wire(model, torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)))
    assert [j.site for j in wiring.connections] == sites
    assert not wiring.refused
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS, ids=lambda o: getattr(o, "__name__", ""))
@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_recipe_against_an_oracle(
    tau: float, kind: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    model, optimizer, x = trained("mlp", 1, kind, **options)
    first, second, head = model[0], model[2], model[4]
    with torch.no_grad():
        a = F.relu(x @ first.weight.T + first.bias)
        b = F.relu(a @ second.weight.T + second.bias)
    dead = []
    for h in (a, b):
        scores = [sum(abs(float(v)) for v in h[:, u]) / len(h) for u in range(h.shape[1])]
        mean = sum(scores) / len(scores)
        dead.append([u for u, score in enumerate(scores) if score <= tau * mean])
    assert dead[0]
    assert dead[1]
    generator = torch.Generator().manual_seed(7)
    fresh = [torch.empty(w.shape) for w in (first.weight, second.weight)]
    for w in fresh:
        nn.init.kaiming_uniform_(w, a=5**0.5, generator=generator)
    want = {n: p.detach().clone() for n, p in model.named_parameters()}
    state = {n: {k: v.clone() for k, v in optimizer.state[p].items()} for n, p in model.named_parameters()}
    for layer, units, new in (("0", dead[0], fresh[0]), ("2", dead[1], fresh[1])):
        for u in units:
            want[f"{layer}.weight"][u] = new[u]
            want[f"{layer}.bias"][u] = 0
    for layer, units in (("2", dead[0]), ("4", dead[1])):
        for u in units:
            want[f"{layer}.weight"][:, u] = 0
    rows = {"0.weight": dead[0], "0.bias": dead[0], "2.weight": dead[1], "2.bias": dead[1]}
    columns = {"2.weight": dead[0], "4.weight": dead[1]}
    for name, running in state.items():
        for key, value in running.items():
            if key == "step":
                value.fill_(0 if name in {*rows, *columns} else 3)
                continue
            for u in rows.get(name, []):
                value[u] = 0
            for u in columns.get(name, []):
                value[:, u] = 0
    acts = redo(model, optimizer, x, tau=tau, generator=torch.Generator().manual_seed(7))
    assert [(act.kind, act.site, act.units) for act in acts] == [
        ("redo", "1", len(dead[0])),
        ("redo", "3", len(dead[1])),
    ]
    for name, p in model.named_parameters():
        assert torch.equal(p, want[name]), name
        assert optimizer.state[p].keys() == state[name].keys()
        for key, value in state[name].items():
            assert torch.equal(optimizer.state[p][key], value), (name, key)
    assert head.bias.tolist() == want["4.bias"].tolist()


def test_a_norm_begins_anew_for_the_unit_and_columns_follow_the_flattening() -> None:
    model, optimizer, x = trained("functional", 0, torch.optim.SGD)
    parts: dict[str, Any] = dict(model.named_modules())
    read: dict[str, Tensor] = {}

    def reads(name: str) -> Any:
        return parts[name].register_forward_pre_hook(lambda _, args: read.update({name: args[0].detach()}))

    hooks = [reads("second"), reads("hidden")]
    model(x)
    for hook in hooks:
        hook.remove()
    dead = read["second"].amax((0, 2, 3)) == 0
    silent = read["hidden"].view(12, 6, 4).amax((0, 2)) == 0
    redo(model, optimizer, x)
    norm, second, hidden = parts["norm"], parts["second"], parts["hidden"]
    assert dead.any()
    assert not dead.all()
    assert torch.equal((norm.weight == 1) & (norm.bias == 0), dead)
    assert torch.equal((norm.running_mean == 0) & (norm.running_var == 1), dead)
    zero = second.weight.abs().sum((0, 2, 3)) == 0
    assert torch.equal(zero, dead)
    gone = (hidden.weight.abs().sum(0) == 0).view(6, 4)
    assert torch.equal(gone.all(1), silent)
    assert torch.equal(gone.all(1), gone.any(1))


def test_the_placebo_recycles_as_many_units_drawn_from_all() -> None:
    model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))
    first, last = model[0], model[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    nn.init.constant_(first.bias, 100.0)
    nn.init.constant_(first.bias.data[:4], -100.0)
    wiring = wire(model, torch.rand(6, 4))
    before, draw = first.weight.clone(), make_draw(None, torch.Generator().manual_seed(0))
    state, lots = TorchOptimizerState(None), torch.Generator().manual_seed(1)
    (event,) = recycle(wiring.connections, wiring.magnitudes, state, 0.0, draw, lots)
    drawn = set(torch.randperm(9, generator=torch.Generator().manual_seed(1))[:4].tolist())
    assert drawn != set(range(4))
    assert (event.kind, event.units, event.detail) == ("redo", 4, "at random, as many as score at most 0")
    assert set((last.weight == 0).all(0).nonzero().flatten().tolist()) == drawn
    assert set((first.weight != before).any(1).nonzero().flatten().tolist()) == drawn
    assert set((first.bias == 0).nonzero().flatten().tolist()) == drawn
    again = wire(model, torch.rand(6, 4))
    assert not recycle(again.connections, {"1": torch.ones(9)}, state, 0.0, draw, lots), "none is dormant"


def test_a_watched_model_and_its_recorder_go_on() -> None:
    model, optimizer, x = trained("mlp", 2, torch.optim.SGD)
    with harness.Recorder(model, optimizer=optimizer, census_every=None, observe="eval") as recorder:
        model.eval()
        model(x)
        model.train()
        assert redo(model, optimizer, x)  # in training mode: not what is recorded
        assert (recorder.census()["n"] == len(x)).all()


class Shared(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.wide, self.deep = nn.Conv1d(4, 4, 1, groups=4), nn.Conv1d(4, 4, 1)
        if how == "tied":
            self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        z = self.a(x)
        h = torch.relu(z)
        match self.how:
            case "residual":
                return self.b(h) + h
            case "residual before":
                return self.b(torch.relu(x + z))
            case "output":
                return self.b(h), h
            case "pre-activation read":
                return self.b(h) + self.c(z)
            case "twice":
                return self.b(torch.relu(self.a(h)))
            case "reader twice":
                return self.b(torch.relu(self.b(h)))
            case "norm behind":
                return self.b(F.layer_norm(h, (4,)))
            case "norm before":
                return self.b(torch.relu(F.group_norm(z, 2)))
            case "scaled":
                return self.b(h * 2)
            case "two activations":
                return self.b(h) + self.c(torch.relu(z))
            case "depthwise":
                return self.wide(h.unsqueeze(-1))
            case "computed":
                return F.linear(h, self.b.weight * 2)
            case "pooled":
                return self.b(F.max_pool1d(h, 1))
            case "mixed":
                return self.b(h.view(-1, 2, 2).transpose(1, 2).reshape(-1, 2).view(-1, 4))
            case "written":
                h[:, 0] = 1.0
                return self.b(h)
            case "alpha dropout":
                return self.b(F.alpha_dropout(h, 0.5, self.training))
        return self.b(h)


REASONS = {
    "residual": "residual sum",
    "residual before": "no nn.Linear or plain convolution",
    "output": "part of the model's output",
    "pre-activation read": "pre-activation is read by another layer",
    "twice": "more than once",
    "reader twice": "more than once",
    "norm behind": "goes through layer_norm",
    "norm before": "group_norm stands before",
    "scaled": "goes through mul",
    "two activations": "activation is called more than once",
    "depthwise": "not a plain Linear",
    "computed": "not a plain Linear",
    "pooled": "goes through max_pool1d",
    "tied": "shares parameters",
    "written": "goes through __setitem__",
    "alpha dropout": "goes through alpha_dropout",
}


@pytest.mark.parametrize("how", REASONS)
def test_what_cannot_be_done_safely_is_refused(how: str) -> None:
    model, x = Shared(how), torch.randn(5, 4)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=REASONS[how]):
        redo(model, None, x, tau=1e6)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_a_transposition_of_units_themselves_is_followed_entry_by_entry() -> None:
    model: Any = Shared("mixed")
    x = torch.randn(5, 4)
    junction = wire(model, x).connections[0]
    assert junction.consumers[0].unit_index.tolist() == [0, 2, 1, 3]
    with torch.no_grad():
        model.a.bias[2] = -50
        before = model(x)
    assert [act.units for act in redo(model, None, x)] == [1]
    assert torch.equal(model(x), before)
    assert model.b.weight[:, 1].abs().sum() == 0


class Heads(nn.Module):
    """Units on two axes: heads and their features."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.into(x).view(-1, 2, 3)).flatten(1))


@pytest.mark.parametrize("remedy", [redo, bias_lift])
def test_units_on_two_axes_are_those_of_the_layer(remedy: Any) -> None:
    model, x = Heads(), torch.rand(5, 4)
    with torch.no_grad():
        model.into.bias.fill_(9.0)
        model.into.bias[4] = -9.0
        before = model(x)
    assert [event.units for event in remedy(model, None, x)] == [1]
    assert (model.into.bias != 9.0).nonzero().flatten().tolist() == [4]
    assert torch.equal(model(x), before) == (remedy is redo)


@pytest.mark.parametrize("name", ["Act", "Junction", "Running", "TorchRunning"])
def test_earlier_names_are_deprecated(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"harness\.remedies\.{name} is deprecated: use"):
        assert getattr(remedies, name) in vars(remedies).values()
    wiring = wire(mlp(), torch.zeros(2, 9))
    with pytest.warns(DeprecationWarning, match="is deprecated: use"):
        first = wiring.junctions[0]
    with pytest.warns(DeprecationWarning, match="is deprecated: use"):
        outlet = first.outlets[0]
    with pytest.warns(DeprecationWarning, match="is deprecated: use"):
        assert outlet.columns is outlet.unit_index


def test_sites_can_be_named_and_bad_arguments_are_told() -> None:
    model, x = mlp(), torch.randn(5, 9)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert [act.site for act in redo(model, None, x, sites=["3"])] == ["3"]
    with pytest.raises(ValueError, match="expected some of 1, 3, but got 'no'"):
        redo(model, None, x, sites=["no"])
    for tau in (-1, float("nan"), "x"):
        with pytest.raises(ValueError, match="tau: expected a number at least 0"):
            redo(model, None, x, tau=tau)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="optimizer"):
        redo(model, model, x)  # type: ignore[arg-type]


def test_what_is_not_finite_is_left_alone() -> None:
    model, x = mlp(), torch.full((5, 9), torch.nan)
    assert redo(model, None, x, tau=10) == []
