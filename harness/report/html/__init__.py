"""Self-contained HTML reports on a run, a sweep or a scan, one file each.

`run_report(run).write(path)` writes a report; `.html()` returns its text. Reports load nothing from the
network.
"""

from __future__ import annotations

from harness.report.html.page import Page
from harness.report.html.run import run_report
from harness.report.html.scan import scan_report
from harness.report.html.sweep import sweep_report

__all__ = ["Page", "run_report", "scan_report", "sweep_report"]
