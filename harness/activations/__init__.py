"""The activation functions, one record each: spellings, gate, f and f′, formula, configuration.

To add one, put a file into this package that binds `ACTIVATIONS` to a tuple of
`harness.activations.record.Activation`; `harness.activations.registry` finds it with pkgutil. Hooks, the
training configuration, stacks and the report's sheet then know it without further changes. The file must not
import torch: it names classes and functions by strings, which `harness.activations.lookup` resolves, so a
module class of your own may be in any importable module (ours is in `crelu.py`).
"""
