"""Sphinx: Markdown pages, docstrings in Google style, and what is generated from the code at each build.

Build it with `sphinx-build -W --keep-going docs docs/_build/html`; nothing is downloaded.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import harness  # noqa: E402


def stand_in(name: str, *classes: str) -> None:
    """A module with empty classes: the pages of the integrations build without their libraries."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update({one: type(one, (), {}) for one in classes})
    sys.modules[name] = module


TRANSFORMERS = ("Trainer", "TrainerCallback", "TrainerControl", "TrainerState", "TrainingArguments")
stand_in("lightning")
stand_in("lightning.pytorch", "Callback", "LightningModule", "Trainer")
stand_in("transformers", *TRANSFORMERS)

project = "harness"
author = "the harness authors"
copyright = "the harness authors"
version = release = harness.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated", "gallery"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = "harness"
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"  # docstrings mark code by single backticks
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # or the fields of a named tuple stand there twice
suppress_warnings = ["ref.python"]  # plain words of docstrings that are fields of two classes
nitpicky = False
