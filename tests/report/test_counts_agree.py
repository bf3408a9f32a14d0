"""One name never has two numbers: in the report and in TensorBoard's texts, of runs of every kind."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from html import unescape
from pathlib import Path

import pytest
import torch
from tb_app import App
from torch import nn

import harness
from harness.report.html import run_report
from harness.report.report_command import stored_diagnosis
from harness.report.tensorboard import rebuild
from harness.store.runs import Run, open_runs

STEPS = 24
Act = Callable[[nn.Sequential, int], None]


def shut(layer: int, units: int, at: int, until: int = STEPS + 1) -> Act:
    """Close the first units of a layer from a step on, and open them again."""

    def act(net: nn.Sequential, step: int) -> None:
        if step in (at, until):
            with torch.no_grad():
                net[layer].bias[:units] = -1e3 if step == at else 1.0  # type: ignore[index, operator]

    return act


def break_off(net: nn.Sequential, step: int) -> None:
    if step == 14:
        with torch.no_grad():
            net[2].weight.fill_(float("inf"))  # type: ignore[operator]


def both(*acts: Act) -> Act:
    def act(net: nn.Sequential, step: int) -> None:
        for one in acts:
            one(net, step)

    return act


KINDS: dict[str, Act] = {
    "healthy": lambda net, step: None,
    "born dead": shut(0, 5, 0),
    "died": shut(0, 5, 6),
    "revived": shut(0, 5, 6, 14),
    "died twice": both(shut(0, 4, 4, 9), shut(0, 4, 13)),
    "born dead and revived": both(shut(2, 6, 0, 10), shut(0, 1, 12)),
    "starved": both(shut(2, 8, 8), shut(0, 2, 3)),
    "all dead": both(shut(0, 8, 5), shut(2, 8, 5)),
    "diverged": both(shut(0, 5, 6), break_off),
}


def trained(root: Path, kind: str, *, probe: bool) -> Run:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        for layer in (0, 2):
            net[layer].bias += 2  # type: ignore[operator]  # all open at first
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001)
    inputs = torch.rand(STEPS, 16, 4)
    act = KINDS[kind]
    act(net, 0)
    name = f"{kind.replace(' ', '_')}_{'probe' if probe else 'stream'}"
    with harness.Recorder(
        net,
        optimizer=optimizer,
        census_every=4,
        probe=torch.rand(40, 4) if probe else None,
        evidence=True,
        output=root,
        name=name,
    ) as recorder:
        for step, x in enumerate(inputs, 1):
            act(net, step)
            loss = (net(x) - 1).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step(loss=loss)
    return open_runs(root / name)[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    root = tmp_path_factory.mktemp("runs")
    made = [trained(root, kind, probe=probe) for kind in KINDS for probe in (True, False)]
    for run in made:
        rebuild(run)
    return {run.name: run for run in made}


INPUTS = r"\([\d.]+ %; n = [^)]*? on the (held-out probe|training stream)"
SENTENCES = {
    rf"([\d,]+) of [\d,]+ units dead( at the end)? {INPUTS}": "dead",
    r"Of the ([\d,]+) dead( at the end)?,()": "dead",
    r"(?<!end, )(?<!dead, )\b([\d,]+) (?:was|were) (?:born dead|dead at the first)()()": "born",
    r"([\d,]+) died at some time()()": "died at some time",
    r"([\d,]+) revived at some time()()": "revived at some time",
    r"([\d,]+) starved on the training stream()()": "starved",
}
BIRTH = ("born dead", "dead at the first census")
END = ("dead at the end", "dead at the last census")


def numbers(page: str) -> dict[str, set[int]]:
    """Name of a count → every number that the page or text gives it."""
    found: dict[str, set[int]] = defaultdict(set)
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())
    inputs = ""
    for pattern, name in SENTENCES.items():
        for count, _, where in re.findall(pattern, text):
            inputs = where or inputs
            found[f"{name} {where or inputs}" if name == "dead" else name].add(int(count.replace(",", "")))
    for number, what in re.findall(r"<li><b>([^<]*)</b><span>([^<]*)</span>", page):
        if what.startswith(END):
            found["dead tile"].add(int(what.split(": ")[1].split()[0]))
        elif re.fullmatch(r"[\d,]+", number):
            found["born" if what in BIRTH else what.removesuffix(" on the training stream")].add(int(number))
    for table in re.findall(r"<table>.*?</table>", page, re.DOTALL):
        rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in table.split("</tr>")]
        head, *body = [row for row in rows if row] or [[""]]
        if head[:3] == ["site", "units", "dead share"]:
            for name, cell in zip(head[3:], body[-1][3:], strict=True):
                if cell:
                    own = "dead tile" if name in END else "born" if name in BIRTH else name
                    found[own].add(int(cell))
        elif head[:2] == ["site", "deaths"]:
            for k, name in ((1, "deaths"), (3, "revivals")):
                found[name].add(sum(int(row[k]) for row in body))
        elif head[0] == "kind":
            for row in body:
                if row[0] in ("deaths", "revivals") and "units" in head and "events" in head:
                    found[row[0]].add(int(row[head.index("units")]))
    return found


@pytest.fixture(scope="module")
def reported(runs: dict[str, Run]) -> Callable[[str], dict[str, set[int]]]:
    """The numbers of a run's report, which takes a second to draw: two tests ask for them."""
    return cache(lambda name: numbers(run_report(runs[name], diagnose=stored_diagnosis).html()))


@pytest.mark.parametrize("probe", ["probe", "stream"])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_names_carry_equal_numbers(
    kind: str, probe: str, runs: dict[str, Run], reported: Callable[[str], dict[str, set[int]]]
) -> None:
    name = f"{kind.replace(' ', '_')}_{probe}"
    run, found = runs[name], reported(name)
    for count, values in found.items():
        assert len(values) == 1, f"{count}: {sorted(values)}"
    final = run.final or run.last
    assert found["dead tile"] == {final["dead"]}
    assert found["born"] == {final["born_dead"]}
    assert found["died at some time"] == {final["died"]}
    assert found["revived at some time"] == {final["revived"]}
    where = "held-out probe" if probe == "probe" else "training stream"
    assert found[f"dead {where}"] == {final["dead"]}
    lives = harness.lifetimes(run.census)
    deaths = int(lives["deaths"].sum())
    assert found.get("deaths", {0}) == {deaths}
    assert deaths >= final["died"]


def test_tensorboards_texts_carry_the_same_numbers(
    runs: dict[str, Run], reported: Callable[[str], dict[str, set[int]]]
) -> None:
    app = App(next(iter(runs.values())).path.parent)
    for name, run in runs.items():
        texts = [
            app.get("plugin/text/text", run=name, tag=tag)[0]["text"]
            for tag in ("verdict", "causes")
            if run.status.get({"causes": "diagnosis"}.get(tag, tag))
        ]
        report = reported(name)
        for key, values in numbers(" ".join(texts)).items():
            assert values == report[key], f"{name}, {key}"


def test_the_kinds_are_what_they_are_called(runs: dict[str, Run]) -> None:
    told = {name: run.final or run.last for name, run in runs.items()}
    for inputs in ("probe", "stream"):
        assert told[f"born_dead_{inputs}"]["born_dead"] >= 5
        assert told[f"died_{inputs}"]["died"] >= 5
        assert told[f"revived_{inputs}"]["revived"] >= 5
        assert harness.lifetimes(runs[f"died_twice_{inputs}"].census)["deaths"].max() == 2
        assert told[f"starved_{inputs}"]["starved"] > 0
        assert runs[f"diverged_{inputs}"].state == "diverged"
