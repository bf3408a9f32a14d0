"""Import the names of a package when they are first used, so that importing the package is fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_imports(
    package: str, where: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Create a package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: `__name__` of the package.
        where: name → module that defines it.

    Example:
        >>> get, names = lazy_imports("harness", {"Site": "harness.graph.plan"})
        >>> get("Site").__module__, "Site" in names()
        ('harness.graph.plan', True)
    """

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(where[name]), name)

    def names() -> list[str]:
        there = vars(sys.modules[package])
        own = {name for name in there if name.startswith("__") or f"{package}.{name}" in sys.modules}
        return sorted({*own, *where})

    return get, names
