"""`python -m experiments`: the list, what is refused, judging anew, the page."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from experiments import command, registry, running
from experiments.__main__ import HOME, main
from experiments.claim import EVERY_SET, SEEN
from experiments.figures.parts import COLOURS
from experiments.page import LEADS, corrected, page
from experiments.shelf import Result, Shelf, with_verdict
from experiments.verdicts import Part, Word, judge

app = typer.Typer(add_completion=False)
app.command()(main)


def cli(*words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    return found.exit_code, found.output


def result(name: str, effect: float = 0.3, seeds: int = 12, data: str = "digits") -> Result:
    """A result of one contrast, judged; the table is that of negative_bias."""
    rows = [
        {
            "sweep": "",
            "seed": seed,
            "status": "finished",
            "bias.offset": bias,
            "dead": 0.05 + effect * (bias <= -1) + 0.001 * seed,
            "born_dead": 0.05 + effect * (bias <= -1),
            "accuracy": 0.9,
            "diverged": 0.0,
        }
        for seed in range(seeds)
        for bias in (0.0, -0.25, -0.5, -1.0, -2.0)
    ]
    table = pd.DataFrame(rows)
    facts = {
        "seconds": 12.0,
        "hardware": "a machine",
        "versions": {"python": "3", "torch": "2"},
        "data": "digits",
    }
    made = Result(name, "small", table, facts, data=data)
    return with_verdict(made, registry.claim("negative_bias").decide(table))


def test_the_list_has_every_sentence_and_the_stored_verdicts(tmp_path: Path) -> None:
    Shelf(tmp_path / "results").put(result("negative_bias"))
    code, said = cli("--output", str(tmp_path))
    assert code == 0
    for claim in registry.claims():
        assert claim.name in said
    assert "supported (small, digits)" in said


def test_the_list_prefers_data_that_nobody_had_looked_at(tmp_path: Path) -> None:
    for data, effect in (("digits", 0.3), ("mnist", 0.3), ("fashion_mnist", 0.0)):
        Shelf(tmp_path / "results").put(result("negative_bias", effect, data=data))
    _, said = cli("--output", str(tmp_path))
    assert "refuted (small, Fashion-MNIST)" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("high_learning_rat",), "Did you mean high_learning_rate"),
        (("negative_bias", "--budget", "tiny"), "expected one of toy, small, standard, full"),
        (("negative_bias", "--all"), "either names or --all"),
        (("--judge",), "give the names of claims"),
        (("negative_bias", "--judge", "--budget", "full"), "no stored result of budget full"),
        (
            ("negative_bias", "--data", "digits,mnits"),
            "expected some of digits, mnist, fashion_mnist, cifar10",
        ),
        (("negative_bias", "--data", ","), "but got none"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    code, said = cli(*words, "--output", str(tmp_path / "out"))
    assert code == 2
    assert told in " ".join(said.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_verdict_of_earlier_rules_is_none(tmp_path: Path) -> None:
    shelf, path = Shelf(tmp_path), tmp_path / "small" / "digits" / "negative_bias.json"
    shelf.put(result("negative_bias"))
    said = json.loads(path.read_text())
    for finding in said["verdict"]["findings"]:
        del finding["power"]
    path.write_text(json.dumps(said))
    assert shelf.verdict("negative_bias", "small", "digits") is None


def test_judging_anew_needs_the_table_alone_and_follows_the_rule(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "results")
    kept = result("negative_bias")
    table = kept.table.assign(dead=0.1, born_dead=0.1)
    shelf.put(Result("negative_bias", "small", table, kept.facts, kept.verdict, "digits"))
    code, said = cli("negative_bias", "--judge", "--output", str(tmp_path))
    assert code == 0
    assert "The data contradict the sentence" in " ".join(said.split())
    verdict = shelf.verdict("negative_bias", "small", "digits")
    assert verdict is not None
    assert verdict.word == "refuted"
    assert not (tmp_path / "runs").exists()


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    Shelf(tmp_path / "results").put(result("negative_bias"))
    (tmp_path / "results" / "small" / "digits" / "negative_bias.json").write_text("{")
    code, said = cli("negative_bias", "--judge", "--output", str(tmp_path))
    assert code == 2
    assert "negative_bias.json cannot be read" in " ".join(said.replace("│", " ").split())


def test_failed_runs_are_an_error_and_nothing_is_judged_from_the_others(tmp_path: Path) -> None:
    claim = registry.claim("sparsity")
    command.run(["sparsity"], "toy", tmp_path, workers=1)
    folder = next((tmp_path / "runs").glob("digits-*"))
    shutil.rmtree(folder)
    plans = running.planned([(claim, "digits")], "toy", tmp_path)
    with pytest.raises(running.FailedRunsError, match="1 of 4 runs failed or are not done"):
        running.gather(claim, plans["sparsity", "digits"], "toy")


def test_the_correction_takes_back_what_does_not_survive() -> None:
    """One of seven seeds by itself and beside four like it, but not beside ten that found nothing."""
    claim = registry.claim("negative_bias")
    strong, weak = result("negative_bias"), result("negative_bias", seeds=7)
    assert weak.verdict is not None
    assert weak.verdict.word == "supported"
    alone = corrected([(claim, [weak])])
    nothing = result("negative_bias", effect=0.2)
    assert nothing.verdict is not None
    assert nothing.verdict.word == "undecided"
    together = corrected([(claim, [weak])] + [(claim, [nothing])] * 10)
    assert alone[0].word == "supported"
    assert [entry.word for entry in corrected([(claim, [weak])] * 5)] == ["supported"] * 5
    assert together[0].word == "undecided"
    assert "does not survive the correction" in page(together)
    with pytest.raises(ValueError, match="judged results"):
        corrected([(claim, [Result("negative_bias", "small", strong.table)])])


def test_the_page_has_the_sentence_the_verdict_the_numbers_and_the_picture() -> None:
    claim = registry.claim("negative_bias")
    text = page(corrected([(claim, [result("negative_bias")])]), [registry.claim("depth")])
    assert "1 claim: 1 supported." in text
    assert f"> {claim.sentence}" in text
    assert "![negative_bias: supported](pictures/negative_bias.png)" in text
    assert "+30.0 points (+30.0 … +30.0)" in text
    assert "a machine" in text
    assert "seeds 0 to 11" in text
    assert "Without a result: depth." in text


def test_the_page_tells_data_sets_apart_and_new_ones_decide() -> None:
    """A rule made on the digits confirms nothing there: what was not looked at before has the verdict."""
    claim = registry.claim("negative_bias")
    kept = [result("negative_bias", data="fashion_mnist", effect=0.0), result("negative_bias", data="mnist")]
    text = page(corrected([(claim, kept)]))
    assert "1 claim: 1 refuted." in text
    assert "| claim | verdict | MNIST | Fashion-MNIST |" in text
    assert "| **refuted** | supported | **refuted** |" in text
    assert "**Refuted** on Fashion-MNIST." in text
    assert "looked at when the rule was made: MNIST: supported." in text
    assert "(pictures/negative_bias_data_sets.png)" in text
    assert "--data mnist,fashion_mnist" in text


def test_a_design_changed_after_three_sets_is_decided_by_the_fourth() -> None:
    claim = dataclasses.replace(registry.claim("negative_bias"), data_sets=EVERY_SET, looked_at=SEEN)
    seen, new = (
        result("negative_bias", data="fashion_mnist"),
        result("negative_bias", data="cifar10", effect=0.0),
    )
    (entry,) = corrected([(claim, [seen, new])])
    assert (entry.on, entry.word) == (["cifar10"], "refuted")
    assert "looked at when the rule was made: Fashion-MNIST: supported." in page([entry])
    assert "It is a rehearsal" not in page([entry])
    assert "It is a rehearsal" in page(corrected([(claim, [seen])]))


def test_the_page_is_written_with_a_forest_over_data_sets(tmp_path: Path) -> None:
    kept = [result("negative_bias", data=data) for data in ("digits", "fashion_mnist")]
    command.write_page([registry.claim("negative_bias")], kept, tmp_path)
    for name in ("negative_bias", "negative_bias_data_sets"):
        assert (tmp_path / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "results" / "small" / "fashion_mnist" / "negative_bias.json").is_file()


def test_every_word_has_a_sentence_a_style_and_a_colour() -> None:
    words = set(get_args(Word))
    assert words == {"supported", "refuted", "mixed", "partly open", "undecided"}
    assert set(LEADS) == set(command.STYLES) == set(COLOURS) == words


def test_a_verdict_survives_its_file(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    lost = np.array([0.1, np.nan, 0.3])
    table = pd.DataFrame({"seed": [0, 1, 2], "diverged": [0.0, 1.0, 0.0]})
    made = with_verdict(
        Result("x", "small", table), judge(Part("a", lost, 0.1), also=[Part("b", lost[:0], 0.1)])
    )
    shelf.put(made)
    again = shelf.get("x", "small")
    assert again is not None
    assert repr(again.verdict) == repr(made.verdict)
    assert made.verdict is not None
    assert (made.verdict.diverged, made.verdict.seeds) == (1, 3)


def test_what_is_committed_is_what_the_rules_say() -> None:
    """The page's verdicts follow from the committed tables."""
    shelf = Shelf(HOME / command.RESULTS)
    found = 0
    for claim, data in [(one, data) for one in registry.claims() for data in one.tried_on]:
        kept = shelf.get(claim.name, "small", data)
        if kept is None:
            continue
        found += 1
        assert kept.verdict is not None
        assert with_verdict(kept, claim.decide(kept.table)).verdict == kept.verdict or "nan" in repr(
            kept.verdict
        )
        assert f"### {claim.name}" in (HOME / "RESULTS.md").read_text(encoding="utf-8")
    assert found == len(list((HOME / command.RESULTS).glob("small/**/*.json")))
