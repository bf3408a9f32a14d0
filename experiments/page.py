"""RESULTS.md: every claim with its verdict, effect, interval, seeds, runs, time and picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.budgets import SEEDS
from experiments.claim import DATA_SETS, Claim
from experiments.confirmation import together
from experiments.page_intro import READING, SETTING
from experiments.shelf import Result
from experiments.units import POINTS
from experiments.verdicts import ALPHA, Finding, Verdict, Word
from harness.compare.correction import adjust
from harness.formats import p_is, p_value

COLUMNS = ("an effect (interval)", "n", "seeds", "runs", "time")  # of the table, at its end
OPEN_AS_A_WHOLE = "Taken with all claims, the data do not decide."
LEADS: dict[Word, str] = {
    "supported": "The data support the sentence.",
    "refuted": "The data contradict the sentence.",
    "mixed": "The data contradict a part of the sentence.",
    "partly open": "The data support a part of the sentence, and leave the rest open.",
    "undecided": "The data do not decide.",
}


def lead(verdict: Verdict) -> str:
    """The verdict in plain words."""
    parts = {finding.word for finding in verdict.findings}
    if verdict.word == "undecided" and parts != {"undecided"}:
        return OPEN_AS_A_WHOLE
    return LEADS[verdict.word]


@dataclass(frozen=True)
class Entry:
    """A claim with its judged results, one per data set.

    Attributes:
        claim: it.
        results: each has a verdict; in the order of `DATA_SETS`.
        on: names of the data sets that decide.
        word: the verdict over these after the correction over all claims of the page; alone: before it.
        p: corrected.
    """

    claim: Claim
    results: Sequence[Result]
    on: Sequence[str]
    word: Word
    alone: Word
    p: float

    @property
    def result(self) -> Result:
        """The first of those that decide."""
        return next(result for result in self.results if result.data in self.on)

    @property
    def verdict(self) -> Verdict:
        return _judged(self.result)

    @property
    def shown(self) -> Verdict:
        """The verdict as pictures show it: undecided if it does not survive the correction."""
        return self.verdict if self.word == self.alone else replace(self.verdict, word=self.word)


def corrected(pairs: Sequence[tuple[Claim, Sequence[Result]]]) -> list[Entry]:
    """Correct the claims' p-values together (Benjamini & Hochberg 1995); what does not survive is undecided.

    Args:
        pairs: each claim with its results, at least one.

    Raises:
        ValueError: a result that is not judged.
    """
    order = ["", *DATA_SETS]
    sorted_ = [(claim, sorted(results, key=lambda one: order.index(one.data))) for claim, results in pairs]
    found = [
        together({one.data: _judged(one) for one in results}, claim.looked_at) for claim, results in sorted_
    ]
    corrected_p = adjust(np.array([p for _, p, _ in found]), "fdr")
    entries = []
    for (claim, results), (word, _, on), p in zip(sorted_, found, corrected_p, strict=True):
        falls = word != "undecided" and not p <= ALPHA
        entries.append(Entry(claim, results, on, "undecided" if falls else word, word, float(p)))
    return entries


def page(entries: Sequence[Entry], missing: Sequence[Claim] = ()) -> str:
    """The page as Markdown.

    Args:
        entries: of `corrected`, in the order of the page.
        missing: claims without a result.
    """
    count = Counter(entry.word for entry in entries)
    sets = [one for one in DATA_SETS if any(one == result.data for e in entries for result in e.results)]
    tally = ", ".join(f"{count[word]} {word}" for word in LEADS if count[word])
    lines = [
        "# Results: sentences about ReLU, held against data",
        "",
        f"{len(entries)} claim{'s' * (len(entries) != 1)}: {tally}.",
        *_made_with(entries),
        "",
        f"| {' | '.join(('claim', 'verdict', *(DATA_SETS[one] for one in sets), *COLUMNS))} |",
        "|---" * (2 + len(sets) + len(COLUMNS)) + "|",
        *(_row(entry, sets) for entry in entries),
        "",
        SETTING,
        "",
        READING,
    ]
    if missing:
        lines += ["", f"Without a result: {', '.join(claim.name for claim in missing)}."]
    for kind, title in (("textbook", "Textbooks and lectures"), ("paper", "Papers")):
        mine = [entry for entry in entries if entry.claim.kind == kind]
        if mine:
            lines += ["", f"## {title}"]
            for entry in mine:
                lines += ["", *section(entry)]
    return "\n".join(lines) + "\n"


def section(entry: Entry) -> list[str]:
    """One claim on the page."""
    claim, on = entry.claim, _titles(entry.on)
    lines = [
        f"### {claim.name}",
        "",
        f"> {claim.sentence}",
        ">",
        f"> — {claim.source}",
        "",
        f"**{entry.word.capitalize()}**{f' on {on}' if on else ''}. "
        f"{lead(replace(entry.verdict, word=entry.word))}",
    ]
    if len(entry.results) == 1:
        lines[-1] += f" {entry.verdict.text}"
    others = [one for one in entry.results if one.data not in entry.on]
    if others:
        looked_at = "; ".join(f"{DATA_SETS[one.data]}: {_judged(one).word}" for one in others)
        lines[-1] += f" On data that were looked at when the rule was made: {looked_at}."
    if set(entry.on) <= set(claim.looked_at):
        lines[-1] += " It is a rehearsal, and not confirmed on other data."
    if entry.word != entry.alone:
        lines += [
            "",
            f"By itself the claim is {entry.alone}; it does not survive the correction over all claims "
            f"({p_is(entry.p)}).",
        ]
    comment = claim.comments.get(entry.word, "")
    lines += ["", comment] if comment else []
    lines += ["", f"*Measured:* {claim.metric} *Smallest effect of interest:* {claim.interest}"]
    lines += ["", *_table(entry.results), ""]
    if claim.beside is not None:
        lines += [f"{_before(one)}{claim.beside(one.table)}\n" for one in entry.results]
    if len(entry.results) > 1:
        lines += [
            f"![{claim.name} on {_titles([one.data for one in entry.results])}]"
            f"(pictures/{claim.name}_data_sets.png)",
            "",
        ]
    lines += [f"![{claim.name}: {entry.verdict.word}](pictures/{claim.name}.png)", ""]
    data = [str(one.facts.get("data") or DATA_SETS[one.data]) for one in entry.results if one.data]
    rows = sum(_judged(one).runs for one in entry.results)
    diverged = sum(_judged(one).diverged for one in entry.results)
    lost = f", of which {diverged} diverged" if diverged else ""
    shown = (
        f" The picture of the runs is of {DATA_SETS[entry.result.data]}." if len(entry.results) > 1 else ""
    )
    lines.append(
        f"*Design:* {claim.design}{f' Data: {_and(data)}.' if data else ''} {rows:,} rows{lost}; "
        f"{entry.verdict.seeds} seeds.{shown}"
    )
    return lines


def inputs(result: Result) -> str:
    """On how many inputs a unit was looked at; a dash where the table does not say.

    Example:
        >>> import pandas as pd
        >>> inputs(Result("x", "small", pd.DataFrame({"n": [360, 360]})))
        '360'
    """
    counts = result.table["n"].dropna() if "n" in result.table else ()
    return " to ".join(f"{int(n):,}" for n in sorted({min(counts), max(counts)})) if len(counts) else "–"


def _made_with(entries: Sequence[Entry]) -> list[str]:
    """Hardware, versions, budget and seeds, once for all."""
    results = [result for entry in entries for result in entry.results]
    if not results:
        return []
    machines = sorted({str(result.facts.get("hardware", "unknown")) for result in results})
    versions: Mapping[str, str] = results[0].facts.get("versions", {})
    used = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "numpy") if name in versions)
    budgets = sorted({result.budget for result in results})
    seconds = sum(float(result.facts.get("seconds", 0)) for result in results)
    seeds = " or ".join(f"0 to {SEEDS[budget] - 1}" for budget in budgets)
    data = [one for one in DATA_SETS if any(result.data == one for result in results)]
    return [
        f"Budget {', '.join(budgets)}; seeds {seeds}, unless a claim says otherwise; "
        f"{seconds / 60:.0f} minutes of computing on one core (runs that claims share are counted in each).",
        f"Made by `python -m experiments --all --data {','.join(data) or 'digits'}` "
        f"with {used} on {'; '.join(machines)}.",
    ]


def _row(entry: Entry, sets: Sequence[str]) -> str:
    findings = entry.verdict.findings
    shown = max(findings, key=lambda one: ("undecided", "refuted", "supported").index(one.word))
    effect = f"{shown.label}: {shown.words}" if len(findings) > 1 else shown.words
    words: dict[str, Word] = {one.data: _judged(one).word for one in entry.results}
    cells = (
        f"[{entry.claim.name}](#{entry.claim.name})",
        f"**{entry.word}**",
        *(_cell(one, words, entry.on) for one in sets),
        effect,
        inputs(entry.result),
        str(entry.verdict.seeds),
        f"{sum(_judged(one).runs for one in entry.results):,}",
        f"{sum(float(one.facts.get('seconds', 0)) for one in entry.results):.0f} s",
    )
    return f"| {' | '.join(cells)} |"


def _cell(data: str, words: Mapping[str, Word], on: Sequence[str]) -> str:
    """The verdict on a data set, bold where it decides."""
    if data not in words:
        return "–"
    return f"**{words[data]}**" if data in on else words[data]


def _table(results: Sequence[Result]) -> list[str]:
    """What decided on each data set, and what was looked at beside it; a contrast's rows stand together."""
    lines = [
        "| contrast | asked | data | n | from → to | effect (interval) | would find | p | pairs | shows |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for deciding in (True, False):
        rows: dict[str, list[tuple[Result, Finding]]] = {}
        for result in results:
            verdict = _judged(result)
            for finding in verdict.findings if deciding else verdict.also:
                rows.setdefault(finding.label, []).append((result, finding))
        for same in rows.values():
            lines += [_finding(*one, first=k == 0, deciding=deciding) for k, one in enumerate(same)]
    return lines


def _finding(result: Result, finding: Finding, *, first: bool, deciding: bool) -> str:
    lost = f" ({finding.lost} lost)" if finding.lost else ""
    cells = (
        finding.label if first else "",
        finding.question if first else "",
        DATA_SETS.get(result.data, "its own"),
        inputs(result),
        _levels(finding),
        "; ".join(filter(None, (finding.words, finding.composite_words))),
        finding.finds,
        p_value(finding.p),
        f"{finding.seeds}{lost}",
        finding.word if deciding else f"({finding.word})",
    )
    return f"| {' | '.join(cells)} |"


def _levels(finding: Finding) -> str:
    """The means of both arms, where they are shares."""
    if finding.unit != POINTS or np.isnan(finding.arm) or np.isnan(finding.baseline):
        return ""
    return f"{100 * finding.baseline:.1f} → {100 * finding.arm:.1f} %"


def _judged(result: Result) -> Verdict:
    if result.verdict is None:
        raise ValueError(f"page: expected judged results only, but {result.claim} is not")
    return result.verdict


def _titles(data: Sequence[str]) -> str:
    return _and([DATA_SETS[one] for one in data if one])


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _before(result: Result) -> str:
    return f"*{DATA_SETS[result.data]}.* " if result.data else ""
