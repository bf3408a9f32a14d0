"""Every record's gate, in every spelling, against autograd of the real torch function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.activations.gates import Gate
from harness.activations.lookup import MODULES, TABLE, bound, compute, gate, lookup
from harness.activations.registry import RECORDS

GRID = torch.cat([torch.linspace(-40, 40, 1601), torch.linspace(-4, 4, 801)]).double().unique()
EPS = (1e-8, 1e-6, 1e-3, 0.05, 0.12, 1 / 6, 0.2, 0.25, 0.3, 0.5, 0.9)
slopes = st.sampled_from([0.0, 1e-7, 0.01, 0.3, -0.4, 1.0]) | st.floats(-2, 2)
sizes = st.sampled_from([0.1, 1.0, 3.0]) | st.floats(0.1, 5)
signed = st.builds(lambda size, sign: size * sign, sizes, st.sampled_from([1, -1]))


def fixed(**values: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {k: v if isinstance(v, st.SearchStrategy) else st.just(v) for k, v in values.items()}
    )


#: Parameters of each record; what is not here has none.
PARAMETERS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "leaky_relu": fixed(negative_slope=slopes),
    "rrelu": st.builds(
        lambda a, b, training: {
            "lower": a if training else min(a, b),  # in training one slope, or gates would be drawn
            "upper": a if training else max(a, b),
            "training": training,
        },
        *(slopes, slopes, st.booleans()),
    ),
    "prelu": fixed(weight=slopes.map(lambda slope: torch.tensor([slope], dtype=torch.float64))),
    "elu": fixed(alpha=signed | st.sampled_from([0.0, 1e-7])),
    "celu": fixed(alpha=signed),
    "softplus": fixed(beta=signed, threshold=st.sampled_from([20, 5, 0.5, -1.0])),
    "hardtanh": st.builds(lambda a, b: {"min_val": a - 4, "max_val": b}, st.floats(-2, 2), st.floats(-1, 6)),
    "hardshrink": fixed(lambd=sizes | st.sampled_from([0.0, -1.0])),
    "softshrink": fixed(lambd=sizes | st.just(0.0)),
    "threshold": fixed(threshold=st.floats(-2, 2), value=st.sampled_from([0.0, 7.0])),
    "gelu": fixed(approximate=st.sampled_from(["none", "tanh"])),
    "clamp": fixed(min=0.0, max=st.none() | sizes),
    "maximum": fixed(other=torch.zeros((), dtype=torch.float64)),
}
KEYWORD_ONLY = ("approximate",)
OVERLOADS = ("default", "other")  # the others are the same with out=, or take scalars


def is_callable_form(function: Any) -> bool:
    """Whether it can be called with the plain arguments, and differentiated."""
    overload = str(getattr(function, "_overloadname", "default"))
    return overload in OVERLOADS and str(function) != "aten.max.default"


FORMS = {name: [f for f, known in TABLE.items() if known == name and is_callable_form(f)] for name in RECORDS}


def in_place(function: Any) -> bool:
    text = str(function).removeprefix("aten.") if "aten" in str(function) else function.__name__
    return text.split(".")[0].endswith("_")


def slopes_of(f: Callable[[Tensor], Any]) -> Tensor:
    """The largest |f'| among a unit's outputs, at the points of the grid."""
    z = GRID.clone().requires_grad_()
    out = f(z.unsqueeze(-1)).reshape(len(GRID), -1)
    found = [torch.autograd.grad(part.sum(), z, retain_graph=True)[0].abs() for part in out.unbind(-1)]
    return torch.stack(found).amax(0)


def assert_gate(gate: Gate, slope: Tensor, eps: float, *, skip: tuple[float | None, ...] = ()) -> None:
    low = gate.low.item() if isinstance(gate.low, Tensor) else gate.low
    z = GRID
    is_open = (z > low) & (z < gate.high) & ~((z >= gate.hole_low) & (z <= gate.hole_high))
    decided = (slope - eps).abs() > 1e-5 * eps  # else rounding decides
    for edge in skip:
        decided &= z != edge
    wrong = decided & (is_open != (slope > eps))
    assert not wrong.any(), (gate, eps, z[wrong].tolist()[:5], slope[wrong].tolist()[:5])


@pytest.mark.parametrize("name", RECORDS)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_gate_is_open_where_autograd_passes_a_gradient(name: str, data: st.DataObject) -> None:
    record = RECORDS[name]
    parameters = data.draw(PARAMETERS.get(record.name, st.just({})))
    eps = data.draw(st.sampled_from(EPS))
    forms: list[Any] = [*(cls for cls, (name, _) in MODULES.items() if name == record.name)]
    form = data.draw(st.sampled_from([*forms, *FORMS[record.name]]))
    if form in forms:
        check_module(form, parameters, eps)
    else:
        check_call(record.name, form, parameters, eps, by_name=data.draw(st.booleans()))


def check_module(cls: type[torch.nn.Module], parameters: dict[str, Any], eps: float) -> None:
    arguments = {k: v for k, v in parameters.items() if k not in ("training", "weight")}
    if "weight" in parameters:
        arguments["init"] = parameters["weight"].item()
    module = cls(**arguments).double().train(parameters.get("training", True))
    known = lookup(module)
    assert known is not None
    assert_gate(known[1](module, eps), slopes_of(module), eps)


def check_call(name: str, form: Any, parameters: dict[str, Any], eps: float, *, by_name: bool) -> None:
    if in_place(form):  # torch has no backward of these in place
        for key in ("alpha", "negative_slope", "lower", "upper"):
            if key in parameters:
                parameters[key] = abs(parameters[key]) + 1e-3
        if "lower" in parameters:
            parameters["lower"], parameters["upper"] = sorted((parameters["lower"], parameters["upper"]))
    named = {k: v for k, v in parameters.items() if k in KEYWORD_ONLY or (by_name and name == "clamp")}
    order = RECORDS[name].positional or tuple(RECORDS[name].parameters)
    args = [parameters[k] for k in order if k in parameters and k not in named]
    if "clamp_min" in str(form):
        args, named, parameters = [0.0], {}, {"min": 0.0}
    slope = slopes_of(lambda z: form(z * 1, *args, **named))
    z = GRID.clone().requires_grad_()
    found = bound(form, (z, *args), named, lambda t: t is z, lambda t: not t.any())
    assert found is not None
    assert found[0] == name
    assert found[1] is z
    solved = gate(name, found[2], eps)
    assert solved is not None
    # there torch passes a gradient to a cut-off value, or half of it
    skip = (0.0, parameters.get("max")) if name in ("clamp", "maximum") else ()
    assert_gate(solved, slope, eps, skip=skip)
    if not parameters.get("training"):
        values, expected = compute(name, found[2], GRID), form(GRID.clone(), *args, **named)
        assert torch.equal(values, expected), "computed apart"


@pytest.mark.parametrize("name", RECORDS)
def test_all_names_of_a_record_are_found(name: str) -> None:
    record = RECORDS[name]
    assert len([cls for cls, (known, _) in MODULES.items() if known == name]) == len(record.modules)
    assert FORMS[name] or name == "crelu"


@pytest.mark.parametrize("eps", [0.0, *EPS])
@pytest.mark.parametrize("name", RECORDS)
def test_the_slope_in_numpy_has_the_same_gate(name: str, eps: float) -> None:
    record = RECORDS[name]
    solved = record.gate({"min": 0.0}, eps)
    assert solved is not None
    slope = torch.from_numpy(abs(record.slope(GRID.numpy()))).reshape(-1, len(GRID)).amax(0)
    near = GRID.abs() < (8 if eps == 0 else 100)  # in the tails a slope is rounded to 0
    assert_gate(solved, torch.where(near, slope, torch.nan), eps)


def test_calls_as_exported_programs_spell_them() -> None:
    aten, z = torch.ops.aten, torch.ones(3)
    calls: list[tuple[Any, tuple[Any, ...], str, Gate]] = [
        (aten.relu.default, (), "relu", Gate(low=0.0)),
        (aten.relu_.default, (), "relu", Gate(low=0.0)),
        (aten.hardtanh.default, (0.0, 6.0), "hardtanh", Gate(low=0.0, high=6.0)),
        (aten.leaky_relu.default, (0.1,), "leaky_relu", Gate()),
        (aten.clamp_min.default, (0,), "clamp", Gate(low=0.0)),
        (aten.threshold.default, (2.0, 0.0), "threshold", Gate(low=2.0)),
        (aten.log_sigmoid.default, (), "logsigmoid", RECORDS["logsigmoid"].gate({}, 1e-6) or Gate()),
        (aten.elu.default, (1.0, 1.0, 0.5), "elu", RECORDS["celu"].gate({"alpha": 2.0}, 5e-7) or Gate()),
    ]
    for function, args, name, expected in calls:
        found = bound(function, (z, *args), {}, lambda t: t is z, lambda t: False)
        assert found is not None
        assert found[0] == name
        if name != "elu":
            assert gate(name, found[2], 1e-6) == expected
        else:  # half the slope for z ≤ 0, as steep as CELU's with alpha = 2
            solved = gate(name, found[2], 1e-6)
            assert solved is not None
            assert solved.low == pytest.approx(2 * torch.tensor(2e-6, dtype=torch.float64).log().item())
    assert bound(torch.add, (z, z), {}, lambda t: True, lambda t: False) is None
    for low in (1.0, None, torch.ones(())):
        assert gate("clamp", {"min": low, "max": 3.0}, 1e-6) is None
