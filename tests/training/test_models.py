"""Networks: shapes, names, refusals, and that each tells truly which layer feeds which activation."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from harness.activations.crelu import CReLU
from harness.config import ConfigError, compose, groups
from harness.training.initialisation import initialise
from harness.training.models import build, feeds, make_activation, widening

torch.set_num_threads(1)

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
TINY = {
    "mlp": ["model=mlp", "model.depth=2", "model.width=6"],
    "mlp-batch": ["model=mlp", "model.depth=2", "model.width=6", "model.norm=batch"],
    "mlp-pre_norm": [
        "model=mlp",
        "model.depth=2",
        "model.width=6",
        "model.norm=layer",
        "model.skip=pre_norm",
    ],
    "mlp-zero_init": ["model=mlp", "model.depth=2", "model.width=6", "model.skip=zero_init"],
    "mlp-post_add": [
        "model=mlp",
        "model.depth=2",
        "model.width=6",
        "model.norm=layer",
        "model.skip=post_add",
    ],
    "cnn": ["model=cnn", "model.channels=2", "model.width=6"],
    "cnn-layer": ["model=cnn", "model.channels=2", "model.width=6", "model.norm=layer"],
    "vgg": ["model=vgg", "model.channels=1"],
    "vgg-16": ["model=vgg", "model.channels=1", "model.depth=16", "model.norm=none"],
    "resnet": ["model=resnet"],
    "rnn": ["model=rnn", "model.width=5", "model.layers=2"],
    "transformer": ["model=transformer", "model.width=8", "model.depth=2", "model.heads=2"],
}
SHORTCUT = ("mlp-post_add", "resnet")  # their activations stand where CReLU cannot
ACTIVATIONS = ("relu", "prelu", "softplus", "crelu")


def made(overrides: list[str], shape: tuple[int, ...]) -> nn.Module:
    spec = compose(overrides)
    model = build(spec, shape, 10)
    initialise(model, spec)
    return model


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [DIGITS, MNIST, CIFAR])
@pytest.mark.parametrize("model", TINY)
def test_every_model_with_every_kind_of_activation(
    model: str, shape: tuple[int, ...], activation: str
) -> None:
    overrides = [*TINY[model], f"activation={activation}"]
    if activation == "crelu" and model in SHORTCUT:
        with pytest.raises(ConfigError, match=r"^activation: crelu doubles"):
            made(overrides, shape)
        return
    network = made(overrides, shape)
    out = network(torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (3, 10)
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is not None for p in network.parameters()), "a parameter that nothing uses"


@pytest.mark.parametrize("activation", groups()["activation"])
def test_every_activation_of_the_group(activation: str) -> None:
    choice = compose([f"activation={activation}"]).activation
    module = make_activation(choice, 4)
    z = torch.randn(5, 4)
    before = z.clone()
    assert module(z).shape == (5, 4 * widening(choice))
    assert torch.equal(z, before)
    assert not getattr(module, "inplace", False)


def test_activation_parameters() -> None:
    def module(*overrides: str) -> nn.Module:
        return make_activation(compose(list(overrides)).activation, 4)

    assert module("activation=leaky_relu", "activation.slope=0.2")(torch.tensor(-1.0)).item() == (
        pytest.approx(-0.2)
    )
    prelu = module("activation=prelu", "activation.slope=0.3")
    assert prelu.get_parameter("weight").tolist() == pytest.approx([0.3] * 4)
    assert module("activation=elu", "activation.alpha=2").alpha == 2
    assert module("activation=celu", "activation.alpha=2").alpha == 2
    assert module("activation=softplus", "activation.beta=3").beta == 3


def test_crelu_keeps_both_halves_on_the_unit_axis() -> None:
    image, tokens = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 3)
    assert torch.equal(CReLU()(image), torch.cat((image.relu(), (-image).relu()), 1))
    assert torch.equal(CReLU()(tokens), torch.cat((tokens.relu(), (-tokens).relu()), -1))
    assert CReLU(dim=1)(tokens).shape == (2, 14, 3)


@pytest.mark.parametrize("model", [m for m in TINY if not m.startswith("mlp")])
def test_images_only(model: str) -> None:
    with pytest.raises(ConfigError, match=r"^model: .*data=digits .*model=mlp takes vectors"):
        build(compose(TINY[model]), (64,), 10)


def test_the_mlp_takes_vectors() -> None:
    assert build(compose(TINY["mlp"]), (7,), 2)(torch.zeros(3, 7)).shape == (3, 2)


def test_transformer_sizes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"^model\.patch: .*28x28 images \(1, 2, 4, 7, 14, 28\).*got 5"):
        build(compose(["model=transformer", "model.patch=5"]), MNIST, 10)
    with pytest.raises(ConfigError, match=r"^model\.heads: .*model\.width=6 \(1, 2, 3, 6\).*got 4"):
        build(compose(["model=transformer", "model.width=6"]), MNIST, 10)


def calls(model: nn.Module, x: Tensor) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Input and output of every call of every module."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def hook(name: str):
        def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if inputs and isinstance(output, Tensor):
                seen.setdefault(name, []).append((inputs[0].clone(), output.clone()))

        return record

    for name, module in model.named_modules():
        module.register_forward_hook(hook(name))
    model(x)
    return seen


@pytest.mark.parametrize("model", [*TINY, "resnet-18"])
def test_feeds_are_true(model: str) -> None:
    """What a layer gives is what its activation gets, except at a sum; no activation is forgotten."""
    network = made(TINY.get(model, ["model=resnet", "model.depth=18"]), DIGITS)
    seen = calls(network, torch.randn(4, *DIGITS))
    declared = feeds(network)
    activations = {name for name, module in network.named_modules() if isinstance(module, nn.ReLU)}
    assert {feed.activation for feed in declared} == activations
    got = dict.fromkeys(activations, 0)
    for feed in declared:
        layer_calls = seen[feed.layer]
        for _, output in layer_calls:
            z = seen[feed.activation][got[feed.activation]][0]
            assert torch.equal(output, z) != feed.summed
            got[feed.activation] += 1
    assert got == {name: len(seen[name]) for name in activations}


def test_names_read_well() -> None:
    network = made(TINY["mlp"], DIGITS)
    assert [(f.activation, f.layer) for f in feeds(network)] == [
        ("layers.0.act", "layers.0.linear"),
        ("layers.1.act", "layers.1.linear"),
    ]
    for model in TINY:
        assert isinstance(made(TINY[model], DIGITS).get_submodule("head"), nn.Linear)


@pytest.mark.parametrize("skip", ["none", "post_add", "pre_norm", "zero_init"])
def test_depth_counts_activations(skip: str) -> None:
    network = made(["model.depth=5", "model.width=4", f"model.skip={skip}"], DIGITS)
    assert sum(isinstance(m, nn.ReLU) for m in network.modules()) == 5


def test_resnet20_is_the_papers() -> None:
    """270 k parameters, and 19 activation modules for 19 calls."""
    network = made(["model=resnet"], CIFAR)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == 20
    assert sum(isinstance(m, nn.ReLU) for m in network.modules()) == 19
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(0.27e6, rel=0.02)


@pytest.mark.parametrize("activation", ["gelu", "prelu"])
def test_resnet18(activation: str) -> None:
    network = made(["model=resnet", "model.depth=18", f"activation={activation}"], CIFAR)
    assert network(torch.zeros(2, *CIFAR)).shape == (2, 10)
    assert not any(isinstance(m, nn.ReLU) for m in network.modules())
    with pytest.raises(ConfigError, match=r"^activation"):
        made(["model=resnet", "model.depth=18", "activation=crelu"], CIFAR)


def test_rnn_is_what_torch_computes() -> None:
    network = made(["model=rnn", "model.width=5", "activation=tanh"], DIGITS)
    fused = nn.RNN(8, 5, batch_first=True)
    linear = network.get_submodule("cells.0.linear")
    assert isinstance(linear, nn.Linear)
    copied = {
        "weight_ih_l0": linear.weight[:, :8],
        "weight_hh_l0": linear.weight[:, 8:],
        "bias_ih_l0": linear.bias,
        "bias_hh_l0": torch.zeros(5),
    }
    fused.load_state_dict({name: value.detach() for name, value in copied.items()})
    x = torch.randn(3, *DIGITS)
    expected = network.get_submodule("head")(fused(x[:, 0])[0][:, -1])
    torch.testing.assert_close(network(x), expected)


def test_build_leaves_the_global_stream_alone_and_positions_follow_the_seed() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, again = (build(compose(TINY["transformer"]), MNIST, 10) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    other = build(compose([*TINY["transformer"], "seed=1"]), MNIST, 10)
    assert torch.equal(one.get_parameter("positions"), again.get_parameter("positions"))
    assert not torch.equal(one.get_parameter("positions"), other.get_parameter("positions"))


@pytest.mark.parametrize("model", TINY)
def test_models_copy_and_pickle(model: str) -> None:
    network = made(TINY[model], DIGITS).eval()
    x = torch.randn(2, *DIGITS)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(x), network(x))
        assert feeds(twin) == feeds(network)
