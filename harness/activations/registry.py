"""All records by canonical name, from every file of this package that binds `ACTIVATIONS`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import harness.activations as package
from harness.activations.record import Activation

#: Files without records; these may import torch.
MACHINERY = {"crelu", "declare", "declared", "fused", "gates", "lookup", "record", "registry", "stored"}


def _discover() -> dict[str, Activation]:
    found: dict[str, Activation] = {}
    for name in sorted({m.name for m in pkgutil.iter_modules(package.__path__)} - MACHINERY):
        for record in import_module(f"{package.__name__}.{name}").ACTIVATIONS:
            if record.name in found:
                raise ValueError(f"activation {record.name}: expected one record, but {name}.py has another")
            found[record.name] = record
    return found


RECORDS = _discover()
#: Records that a configuration can choose → their options: the module's argument and its default.
OPTIONS = {name: record.options for name, record in RECORDS.items() if record.options is not None}
