"""tree: show a model as the tree of its modules, with the dead share of every site below its module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from harness.detector.counts import sentence
from harness.detector.states import dead_fraction
from harness.graph.plan import Site, qualified_names
from harness.recording.batches import Batch
from harness.recording.scan import Report, scan

HEAD = ("layer", "output", "parameters", "units", "dead")
NONE = "–"
LATER_CALL = re.compile(
    r"(#\d+|\[[^\]]*\])+$"
)  # suffix of a site's name for another producer or another width


@dataclass(frozen=True)
class Line:
    """A line of the tree.

    Attributes:
        depth: depth of the module; a site is one level deeper than the module that calls it.
        text: name and class of a module, or a site and the layers that feed it.
        output: shape of the module's first output.
        parameters: number of the module's parameters, without those of modules with their own line.
        units: number of units of a site.
        dead: dead share of a site as text.
    """

    depth: int
    text: str
    output: str = ""
    parameters: str = ""
    units: str = ""
    dead: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of the line, with the text unindented."""
        return self.text, self.output, self.parameters, self.units, self.dead


@dataclass(frozen=True, repr=False)
class ModelTree:
    """Result of `harness.tree`; `print` it, or display it in a notebook.

    Attributes:
        lines: modules and sites, in the order of registration.
        total: number of parameters of the model, counting shared ones once.
        report: report of the scan.
    """

    lines: tuple[Line, ...]
    total: int
    report: Report

    def __str__(self) -> str:
        rows = [("  " * line.depth + line.cells[0], *line.cells[1:]) for line in self.lines]
        widths = [max(len(row[k]) for row in (HEAD, *rows)) for k in range(len(HEAD))]
        text = [
            "  ".join(
                (row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)))
            )
            for row in (HEAD, *rows)
        ]
        rule = "─" * max(map(len, text))
        return "\n".join([text[0].rstrip(), rule, *(row.rstrip() for row in text[1:]), rule, self._end])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in HEAD)
        rows = "".join(
            f'<tr><td style="text-align:left;padding-left:{line.depth + 0.5}em">{escape(line.text)}</td>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in line.cells[1:])
            + "</tr>"
            for line in self.lines
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><p>{escape(self._end)}</p>"

    @property
    def _end(self) -> str:
        return f"{self.total:,} parameters. {sentence(self.report.units)}"


def tree(
    model: nn.Module, batches: Batch | Iterable[Batch], *, depth: int | None = None, **options: Any
) -> ModelTree:
    """Pass over the batches in evaluation mode, and show every module with the dead units of its sites.

    Like `scan`, it has no side effects on the model.

    Args:
        model: any module.
        batches: as in `harness.scan`.
        depth: largest depth of modules to show; sites of deeper modules appear below the last one shown.
            None: all.
        options: further arguments of `harness.scan`.

    Raises:
        TypeError, ValueError: as in `harness.scan`, or `depth` is not an integer of at least 0.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
        >>> _ = nn.init.constant_(model[0].bias, -9)
        >>> print(tree(model, torch.rand(50, 2)))
        layer          output  parameters  units     dead
        ─────────────────────────────────────────────────
        Sequential    (50, 3)
          0 (Linear)  (50, 4)          12
          1 (ReLU)    (50, 4)
            1 ← 0                              4  100.0 %
          2 (Linear)  (50, 3)          15
        ─────────────────────────────────────────────────
        27 parameters. 4 of 4 units dead (100.0 %; n = 50, rate < 5.8 %).
    """
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise ValueError(f"depth: expected a whole number from 0 on, but got {depth!r}")
    shapes: dict[nn.Module, str] = {}
    with _output_shapes(model, shapes):
        report = scan(model, batches, **options)
    lines = tuple(_lines(model, shapes, report, depth))
    return ModelTree(lines, sum(map(_size, model.parameters())), report)


def _lines(
    root: nn.Module, shapes: Mapping[nn.Module, str], report: Report, depth: int | None
) -> Iterator[Line]:
    """Yield modules in the order of registration, each followed by the sites that it calls."""
    names = qualified_names(root)
    shown = {module: path for module, path in _paths(root) if depth is None or len(path) <= depth}
    own = {names[module]: module for module in names}
    sites: dict[nn.Module, list[Site]] = {}
    for site in (*report.plan.sites, *report.plan.unobserved):
        sites.setdefault(_shown_owner(site, own, shown, root), []).append(site)
    for module, path in shown.items():
        name = f"{path[-1]} ({type(module).__name__})" if path else type(module).__name__
        last = len(path) == depth  # include the parameters of hidden submodules
        own_size = sum(_size(parameter) for parameter in module.parameters(recurse=last))
        yield Line(len(path), name, shapes.get(module, NONE), f"{own_size:,}" if own_size else "")
        for site in sites.get(module, ()):
            yield _site_line(len(path) + 1, site, report)


def _site_line(depth: int, site: Site, report: Report) -> Line:
    rows = report.units[report.units["site"] == site.name]
    share = dead_fraction(rows) if len(rows) else float("nan")
    made = f" ← {', '.join(site.producers)}" if site.producers else ""
    dead = (
        f"unobserved: {site.reason}"
        if site.reason
        else "not finite"
        if share != share
        else f"{100 * share:.1f} %"
    )
    return Line(depth, f"{site.name}{made}", units=f"{site.size:,}" if site.size >= 0 else NONE, dead=dead)


def _paths(root: nn.Module) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Yield each module once, at its first position, with its path of names."""
    for name, module in root.named_modules():
        yield module, tuple(name.split(".")) if name else ()


def _shown_owner(
    site: Site, own: Mapping[str, nn.Module], shown: Mapping[nn.Module, Any], root: nn.Module
) -> nn.Module:
    """Return the module that calls a site, or its nearest ancestor that is shown."""
    name = LATER_CALL.sub("", site.name).split(":")[0]
    while name not in own or own[name] not in shown:
        if not name:
            return root
        name = name.rpartition(".")[0]
    return own[name]


@contextmanager
def _output_shapes(root: nn.Module, found: dict[nn.Module, str]) -> Iterator[None]:
    """Record the shape of every module's first output."""

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if module not in found:
            found[module] = _shape(output)

    with ExitStack() as hooks:
        for module in root.modules():
            hooks.enter_context(module.register_forward_hook(note))
        yield


def _shape(value: Any) -> str:
    """Format the shape of the first tensor in an output; – if there is none."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((shape for shape in map(_shape, parts) if shape != NONE), NONE)


def _size(parameter: Tensor) -> int:
    return 0 if is_lazy(parameter) else parameter.numel()
