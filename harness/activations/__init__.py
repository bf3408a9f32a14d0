"""The activation functions, one record each: spellings, gate, f and f′, formula, configuration.

To add one, put a single file into this folder that binds `ACTIVATIONS` to a tuple of
`harness.activations.record.Activation`; `harness.activations.registry` finds it with pkgutil. Hooks, the
training configuration, stacks and the report's sheet then know it; nothing else is edited. Such a file
must not import torch: classes and functions are named by strings, which `harness.activations.lookup`
resolves, so a module class of your own may stand in any importable module (`crelu.py` holds ours).
"""
