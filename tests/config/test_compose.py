"""Overrides to RunSpecs: what is refused, and with which words."""

from __future__ import annotations

import pytest

from harness.config import ConfigError, compose, plan
from harness.config.schema import Adam, Cnn, Dtype, Norm

WRONG = [
    (["optim.lrr=1"], "optim.lrr", "Did you mean optim.lr"),
    (["lr=1"], "lr", "Did you mean optim.lr"),
    (["optim.lr=abc"], "optim.lr", "but got 'abc'"),
    (["optim.lr=-1"], "optim.lr", "expected a number above 0 and at most 1e+36, but got -1"),
    (["optim.lr=nan"], "optim.lr", "expected a number above 0"),
    (["optim.lr=inf"], "optim.lr", "expected a number above 0"),
    (["optim.lr=null"], "optim.lr", "but got null"),
    (["model=mpl"], "model", "Did you mean mlp"),
    (["model.name=cnn"], "model.name", "Write model=cnn"),
    (["model=cnn", "model.depth=3"], "model.depth", "model=cnn has channels, width, norm"),
    (["optim.momentum=0.9"], "optim.momentum", "optim=sgd has lr, weight_decay"),
    (["model.norm=bach"], "model.norm", "one of none, batch, layer"),
    (["model=vgg", "model.depth=12"], "model.depth", "one of 11, 13, 16"),
    (["optim=adam", "optim.betas=[0.9]"], "optim.betas", "a list of 2 numbers"),
    (["optim=adam", "optim.betas=[0.9,1]"], "optim.betas", "below 1"),
    (["+foo=1"], "+foo", "not added or deleted"),
    (["+optim.lr=1"], "+optim.lr", "Write optim.lr="),
    (["~optim"], "~optim", "not added or deleted"),
    (["seed=1.5"], "seed", "a whole number"),
    (["seed=-1"], "seed", "at least 0"),
    (["seed=1,2"], "seed", "Add -m"),
    (["seed=range(3)"], "seed", "Add -m"),
    (["seed=["], "", "cannot read"),
    (["data"], "", "Write key=value"),
    (["data=arrays"], "data.path", "a value is needed"),
    (["model={a:1}"], "model", "one of"),
    (["optim.lr={a:1}"], "optim.lr", "a number above 0"),
    (["device=gpu"], "device", "auto, cpu, cuda"),
    (["force=maybe"], "force", "true or false"),
    (["output="], "output", "expected text"),
    (["data.label_noise=1.5"], "data.label_noise", "at most 1"),
    (["train.max_steps=0"], "train.max_steps", "at least 1"),
    (["hydra.nonsense=1"], "", "hydra.nonsense"),
    (["model.depth.x=1"], "model.depth.x", "no such key"),
]


@pytest.mark.parametrize(("overrides", "key", "words"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_overrides_name_the_key_and_what_to_do(overrides: list[str], key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert caught.value.key == key
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_groups_bring_their_own_types() -> None:
    spec = compose(["model=cnn", "model.norm=batch", "optim=adam", "optim.betas=[0.5,0.9]", "dtype=float64"])
    assert isinstance(spec.model, Cnn)
    assert spec.model.norm is Norm.batch
    assert isinstance(spec.optim, Adam)
    assert spec.optim.betas == [0.5, 0.9]
    assert spec.dtype is Dtype.float64


def test_whole_numbers_serve_as_floats_and_null_as_none() -> None:
    spec = compose(["optim.lr=1", "train.max_steps=null", "train.clip_grad=2"])
    assert spec.optim.lr == 1.0
    assert isinstance(spec.optim.lr, float)
    assert spec.train.max_steps is None
    assert spec.train.clip_grad == 2.0


def test_a_sweep_is_the_product_in_hydras_order() -> None:
    specs = plan(["optim.lr=0.1,1", "activation=relu,elu", "seed=range(2)", "model.width=8"], multirun=True)
    told = [(s.optim.lr, s.activation.name, s.seed, s.model.width) for s in specs]  # type: ignore[attr-defined]
    assert told == [(lr, a, s, 8) for lr in (0.1, 1.0) for a in ("relu", "elu") for s in (0, 1)]


def test_one_bad_value_refuses_the_whole_sweep() -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr: expected a number above 0"):
        plan(["optim.lr=0.1,-1", "seed=range(4)"], multirun=True)


def test_globs_choose_among_the_choices() -> None:
    names = [s.activation.name for s in plan(["activation=glob(*elu*)"], multirun=True)]
    assert set(names) == {"celu", "crelu", "elu", "gelu", "leaky_relu", "prelu", "relu", "relu6", "selu"}


def test_a_specification_that_is_changed_changes_no_other() -> None:
    compose(["data=mnist"]).data.name = "imagenet"
    compose(["data=mnist", "seed=3"]).optim.lr = 7.0
    again = compose(["data=mnist", "seed=4"])
    assert (again.data.name, again.optim.lr) == ("mnist", compose([]).optim.lr)
    assert again.optim.lr != 7.0
