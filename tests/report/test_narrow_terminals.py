"""In a narrow terminal a table keeps its labels and numbers; its lines go on in the next one."""

from __future__ import annotations

import pytest
from rich.console import Group

from harness.report.console_parts import plain_table
from harness.report.terminal_width import console


def wide() -> Group:
    table = plain_table("effects", "of something")
    table.add_column("level", overflow="fold")
    for name in ("outcome", "difference", "interval", "adjusted"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("bias.offset=-0.5", "born dead", "+47.4", "+41.5 … +64.7", "0.0078*")
    return Group(table)


@pytest.mark.parametrize("columns", [20, 40, 60, 200])
def test_no_label_and_no_number_is_cut(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = wide()
    console(shown).print(shown)
    out = capsys.readouterr().out
    for word in ("level", "bias.offset=-0.5", "born dead", "+41.5 … +64.7", "0.0078*"):
        assert word in out
    assert "…" not in out.replace("+41.5 … +64.7", "")
