"""Mixing: parameters that make a pre-activation, some with current and the others with earlier values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import Tensor

from harness.attribution.evidence import FACTORS
from harness.attribution.replay import NORMS, Replay
from harness.attribution.shapley import Coalition
from harness.attribution.snapshots import Values
from harness.kernels.same_values import same_values

OWN = FACTORS[:4]  # factors of a unit's own layer


class Mixture:
    """Mixes the values of two times.

    Args:
        replay: replay of the model.
        then: parameters and buffers of the reference.
        now: the current ones.
        decayed: name of a parameter → the part of its change due to weight decay.
        biases: names of further parameters that are biases, whatever they are called.
    """

    def __init__(
        self,
        replay: Replay,
        then: Values,
        now: Values,
        decayed: Mapping[str, Tensor],
        biases: Collection[str] = (),
    ) -> None:
        self._replay, self._then, self._now, self._decayed = replay, then, now, decayed
        self._biases = biases

    def changed(self, makers: Sequence[str]) -> list[str]:
        """The own factors of some modules or parameters that differ between the two times."""
        changed: set[str] = set()
        for key, factor in (pair for name in makers for pair in self.factors(name)):
            if not same_values(self._then[key], self._now[key]):
                changed.add(factor)
                if factor == "weights" and key in self._decayed and bool(self._decayed[key].any()):
                    changed.add("decay")
        return [factor for factor in OWN if factor in changed]

    def factors(self, name: str) -> Iterator[tuple[str, str]]:
        """Name and factor of every parameter and statistic of a module, or of a parameter."""
        module = self._replay.modules.get(name)
        if module is None:
            is_bias = name in self._biases or _is_bias(name.rpartition(".")[2], self._then[name])
            yield name, "bias" if is_bias else "weights"
            return
        prefix = f"{name}." if name else ""
        for short, parameter in module.named_parameters():  # its own, or those of its reparametrisation
            yield prefix + short, "bias" if _is_bias(short, parameter) else "weights"
        if not isinstance(module, NORMS):  # masks of a pruned weight, vectors of a spectral norm
            for short, _ in module.named_buffers():
                yield prefix + short, "weights"
        elif not self._replay.modes.get(name, module.training):
            for short, _ in module.named_buffers(recurse=False):
                if short in ("running_mean", "running_var"):
                    yield prefix + short, "norm"

    def values(self, name: str, own: Coalition) -> Values:
        """A module's values, by their names in it, with current values for the factors of a coalition."""
        factors = dict(self.factors(name))
        mixed = {}
        for short, key in self._replay.named_values(name).items():
            then, now = self._then[key], self._now[key]
            factor, decay = factors.get(key), self._decayed.get(key)
            if factor is None:  # a statistic that the pass overwrites
                mixed[short] = then.clone()
            elif factor != "weights" or decay is None or {"weights", "decay"} <= own:
                mixed[short] = now if factor in own else then
            elif "weights" in own:
                mixed[short] = now - decay
            else:
                mixed[short] = then + decay if "decay" in own else then
        return mixed

    def whole(self, makers: Sequence[str], coalition: Coalition) -> Values:
        """All values of the model: the makers' mixed, the others by whether `upstream` is included."""
        values = dict(self._now if "upstream" in coalition else self._then)
        for name in makers:
            mixed = self.values(name, coalition)
            values |= {key: mixed[short] for short, key in self._replay.named_values(name).items()}
        return values


def _is_bias(name: str, value: Tensor) -> bool:
    return "bias" in name or (value.ndim < 2 and "weight" not in name)
