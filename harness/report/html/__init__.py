"""Reports as one self-contained HTML file each: a run, a sweep, a scan.

`run_report(run).write(path)`; `.html()` is the text. No file loads anything from the network.
"""

from __future__ import annotations

from harness.report.html.page import Page
from harness.report.html.run import run_report
from harness.report.html.scan import scan_report
from harness.report.html.sweep import sweep_report

__all__ = ["Page", "run_report", "scan_report", "sweep_report"]
