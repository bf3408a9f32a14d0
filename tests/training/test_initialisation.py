"""Initial weights: laws of every scheme, exact knobs, reproducible and independent draws."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from harness.config import compose, groups
from harness.training.initialisation import RAI_DEVIATION, initialise, layers
from harness.training.models import build, feeds
from harness.training.sign_flip import sign_flip

torch.set_num_threads(1)

DIGITS = (1, 8, 8)
WIDE = ["model.depth=2", "model.width=200"]
MODELS = {
    "mlp": ["model.depth=8", "model.width=8"],
    "mlp-layer": ["model.depth=4", "model.width=8", "model.norm=layer"],
    "mlp-batch": ["model.depth=4", "model.width=8", "model.norm=batch"],
    "mlp-pre_norm": ["model.depth=3", "model.width=8", "model.skip=pre_norm"],
    "mlp-post_add": ["model.depth=3", "model.width=8", "model.skip=post_add"],
    "cnn": ["model=cnn", "model.channels=3", "model.width=8"],
    "vgg": ["model=vgg", "model.channels=1", "model.norm=none"],
    "resnet": ["model=resnet"],
    "rnn": ["model=rnn", "model.width=8", "model.layers=2"],
    "transformer": ["model=transformer", "model.width=8", "model.heads=2"],
}
SCHEMES = [
    name for name in groups()["init"] if name not in ("own", "stored")
]  # these have made their weights


def made(*overrides: str, shape: tuple[int, ...] = DIGITS, sample: Tensor | None = None) -> nn.Module:
    spec = compose(list(overrides))
    model = build(spec, shape, 10)
    initialise(model, spec, sample)
    return model


def points(n: int = 100, shape: tuple[int, ...] = DIGITS, seed: int = 0) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{i}": m.weight for name, maps in layers(model) for i, m in enumerate(maps)}


def same(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# --- the laws -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "law"),
    [
        ("kaiming_normal", lambda i, o: stats.norm(0, math.sqrt(2 / i))),
        ("kaiming_uniform", lambda i, o: _uniform(math.sqrt(6 / i))),
        ("xavier_normal", lambda i, o: stats.norm(0, math.sqrt(2 / (i + o)))),
        ("xavier_uniform", lambda i, o: _uniform(math.sqrt(6 / (i + o)))),
        ("lecun_normal", lambda i, o: stats.norm(0, math.sqrt(1 / i))),
        ("torch_default", lambda i, o: _uniform(1 / math.sqrt(i))),
    ],
)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_law_of_the_weights(scheme: str, law, activation: str) -> None:
    model = made(f"init={scheme}", f"activation={activation}", *WIDE)
    for weight in weights(model).values():
        if weight.numel() < 10_000:
            continue
        expected = law(weight.shape[1], weight.shape[0])
        values = weight.detach().flatten().double()
        error = math.sqrt((float(expected.stats("k")) + 2) / values.numel())  # of a variance, relative
        assert values.var().item() == pytest.approx(expected.var(), rel=5 * error)
        assert stats.kstest(values[:5000].numpy(), expected.cdf).pvalue > 1e-4


def _uniform(bound: float):
    return stats.uniform(-bound, 2 * bound)


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_fan_in_of_convolutions_and_attention(kind: str) -> None:
    more = ["model.channels=32"] if kind == "cnn" else ["model.width=64"]
    for name, weight in weights(made(f"model={kind}", *more)).items():
        if weight.numel() < 4000:
            continue
        variance = weight.var().item() * weight[0].numel()
        assert variance == pytest.approx(2, rel=5 * math.sqrt(2 / weight.numel())), name


def test_orthogonal() -> None:
    for weight in weights(made("init=orthogonal", *WIDE)).values():
        short = weight if weight.shape[0] <= weight.shape[1] else weight.T
        torch.testing.assert_close(short @ short.T, torch.eye(len(short)), atol=1e-5, rtol=0)


def test_rai() -> None:
    """One entry of each unit's (w, b) is from Beta(2, 1), the bias as often as any other."""
    model = made("init=rai", "model.depth=1", "model.width=20000", shape=(3,))
    linear = model.get_submodule("layers.0.linear")
    assert isinstance(linear, nn.Linear)
    entries = torch.cat((linear.weight, linear.bias[:, None]), 1).detach().double()
    normal, beta = stats.norm(0, RAI_DEVIATION / math.sqrt(3)), stats.beta(2, 1)
    for column in entries.T:
        mixture = lambda x: 0.75 * normal.cdf(x) + 0.25 * beta.cdf(x)  # noqa: E731
        assert stats.kstest(column.numpy(), mixture).pvalue > 1e-4
    # of a unit exactly one entry is replaced: the sum's variance is that of 3 normals and one beta
    spread = 3 * normal.var() + beta.var()
    assert entries.sum(1).var().item() == pytest.approx(spread, rel=0.05)
    assert entries.sum(1).mean().item() == pytest.approx(beta.mean(), abs=0.03)


def test_rai_without_bias_replaces_a_weight() -> None:
    model = made("init=rai", "model.depth=1", "model.width=20000", "model.norm=batch", shape=(1,))
    linear = model.get_submodule("layers.0.linear")
    assert isinstance(linear, nn.Linear)
    assert stats.kstest(linear.weight.detach().flatten().numpy(), stats.beta(2, 1).cdf).pvalue > 1e-4


# --- the knobs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "sign_flip"])
@pytest.mark.parametrize("kind", ["mlp", "cnn", "transformer"])
def test_gain_and_mean_are_exact(scheme: str, kind: str) -> None:
    common = [*MODELS[kind], f"init={scheme}"]
    plain, doubled = weights(made(*common)), weights(made(*common, "init.gain=2"))
    shifted = weights(made(*common, "init.mean=-0.5"))
    for name, weight in plain.items():
        assert torch.equal(doubled[name], 2 * weight)
        assert torch.equal(shifted[name], weight - 0.5 / math.sqrt(weight[0].numel()))


@pytest.mark.parametrize("kind", MODELS)
def test_the_offset_reaches_what_feeds_an_activation_and_nothing_else(kind: str) -> None:
    plain, moved = made(*MODELS[kind]), made(*MODELS[kind], "bias.offset=-0.5")
    fed = {f"{feed.layer}.bias" for feed in feeds(plain)}
    assert fed
    before = dict(plain.named_parameters())
    for name, value in moved.named_parameters():
        expected = before[name] - 0.5 if name in fed else before[name]
        assert torch.equal(value, expected), name
    assert all((before[name] == 0).all() for name in fed)


def test_torch_default_biases() -> None:
    model = made("bias=torch_default", "bias.offset=2", *WIDE)
    for name, maps in layers(model):
        weight, bias = maps[0]
        assert bias is not None
        bound = 1 / math.sqrt(weight.shape[1])
        centred = bias.detach() - (0 if name == "head" else 2)
        assert centred.abs().max() <= bound * (1 + 1e-5)
        assert centred.std() > 0.3 * bound


def test_norms_start_at_one_and_zero() -> None:
    model = made("model=cnn", "model.norm=batch", "init=rai", "init.gain=3", "init.mean=1")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_zero_branch_is_exactly_the_identity(scheme: str) -> None:
    model = made(
        *["model.skip=zero_init", "model.width=8", f"init={scheme}", "init.mean=1"],
        *["bias=torch_default", "bias.offset=0.5"],
        sample=points(),
    )
    h = torch.randn(5, 8)
    assert torch.equal(model.get_submodule("layers")(h), h)


# --- the draws ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "scheme"), [*(("mlp", s) for s in SCHEMES), *((kind, "sign_flip") for kind in MODELS)]
)
def test_reproducible_and_idempotent(kind: str, scheme: str) -> None:
    overrides = [*MODELS[kind], f"init={scheme}", "bias=torch_default"]
    state = torch.random.get_rng_state()
    one, two = (made(*overrides, sample=points()) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert same(one, two)
    initialise(one, compose(overrides), points())
    assert same(one, two)
    assert not same(one, made(*overrides, "seed=1", sample=points()))


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "sign_flip"])
def test_a_layer_does_not_feel_the_shapes_of_others(scheme: str) -> None:
    common = ["model.depth=3", "model.width=8", f"init={scheme}", "bias=torch_default"]
    small, large = made(*common, shape=(5,)), made(*common, shape=(50,))
    for name in ("layers.1.linear", "layers.2.linear", "head"):
        a, b = small.get_submodule(name), large.get_submodule(name)
        assert isinstance(a, nn.Linear)
        assert isinstance(b, nn.Linear)
        assert torch.equal(a.weight, b.weight)
        assert torch.equal(a.bias, b.bias)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["mlp-batch", "cnn", "transformer"])
def test_float64_starts_from_the_float32_draw(scheme: str, kind: str) -> None:
    overrides = [*MODELS[kind], f"init={scheme}", "init.gain=1.3", "init.mean=0.1", "bias=torch_default"]
    single = made(*overrides, sample=points())
    double = made(*overrides, "dtype=float64", sample=points().double())
    assert next(double.parameters()).dtype == torch.float64
    assert same(double, single.double())


# --- sign flips ---------------------------------------------------------------------------------


def rates(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Share of the inputs (batch and positions) on which each directly fed unit is positive."""
    seen: dict[str, list[Tensor]] = {}
    handles = []
    for feed in feeds(model):
        if not feed.summed:
            layer = model.get_submodule(feed.layer)
            keep = seen.setdefault(feed.layer, [])
            handles.append(layer.register_forward_hook(lambda m, i, z, keep=keep: keep.append(z)))
    with torch.no_grad():
        model.train()(x)
    for handle in handles:
        handle.remove()
    found = {}
    for name, calls in seen.items():
        z = torch.cat([c.movedim(1, -1).flatten(0, -2) for c in calls])
        found[name] = (z > 0).double().mean(0)
    return found


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "mlp-post_add"])  # nothing but sums
@pytest.mark.parametrize("bias", ["bias.offset=0", "bias.offset=-2", "bias=torch_default"])
def test_sign_flip_leaves_no_dead_unit(kind: str, bias: str) -> None:
    x = points(60)
    after = rates(made(*MODELS[kind], "init=sign_flip", bias, sample=x), x)
    assert after
    for name, rate in after.items():
        assert (rate > 0).all(), name
    if bias == "bias.offset=-2":
        before = rates(made(*MODELS[kind], bias), x)
        assert any((rate == 0).any() for rate in before.values()), "the test would pass without flipping"


def test_sign_flip_cures_a_deep_narrow_network_and_only_turns_signs() -> None:
    x = points(200)
    deep = ["model.depth=20", "model.width=16"]
    plain, turned = made(*deep), made(*deep, "init=sign_flip", sample=x)
    assert torch.cat(list(rates(plain, x).values())).eq(0).double().mean() > 0.1
    assert torch.cat(list(rates(turned, x).values())).eq(0).sum() == 0
    for name, weight in weights(plain).items():
        assert torch.equal(weight.abs(), weights(turned)[name].abs())


def test_sign_flip_counts_only_inputs_alive() -> None:
    """Zeros arriving say nothing: 1 of 4 positive is a minority, 1 of 1 alive is not."""
    model = made("model.depth=1", "model.width=1", shape=(1,))
    linear = model.get_submodule("layers.0.linear")
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.fill_(1.0)
    sign_flip(model, torch.tensor([[1.0], [0.0], [0.0], [0.0]]))
    assert linear.weight.item() == 1.0
    sign_flip(model, torch.tensor([[1.0], [-1.0], [-1.0], [0.0]]))
    assert linear.weight.item() == -1.0


def test_sign_flip_leaves_running_statistics_and_mode() -> None:
    spec = compose([*MODELS["mlp-batch"], "init=sign_flip"])
    model = build(spec, DIGITS, 10).eval()
    initialise(model, spec, points())
    assert not model.training
    norm = model.get_submodule("layers.0.norm")
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert norm.num_batches_tracked is not None
    assert (norm.running_mean == 0).all()
    assert norm.num_batches_tracked == 0
    assert not norm._forward_hooks


def test_refusals() -> None:
    with pytest.raises(ValueError, match="give a sample"):
        made("init=sign_flip")
    stranger = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(ValueError, match="does not say which layers feed"):
        initialise(stranger, compose(["bias.offset=1"]))
    initialise(stranger, compose([]))
