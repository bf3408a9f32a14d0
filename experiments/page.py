"""RESULTS.md: every claim with its verdict, effect, interval, seeds, runs, time and picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.budgets import SEEDS
from experiments.claim import Claim
from experiments.shelf import Result
from experiments.verdicts import ALPHA, Finding, Verdict, Word
from harness.compare.correction import adjust

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
    """A claim with its judged result.

    Attributes:
        claim, result: the result has a verdict.
        word: the verdict after Holm's correction over all claims of the page.
        p: corrected.
    """

    claim: Claim
    result: Result
    word: Word
    p: float

    @property
    def verdict(self) -> Verdict:
        assert self.result.verdict is not None
        return self.result.verdict


def corrected(pairs: Sequence[tuple[Claim, Result]]) -> list[Entry]:
    """Correct the claims' p-values together (Holm 1979); what does not survive is undecided.

    Raises:
        ValueError: a result that is not judged.
    """
    verdicts = [result.verdict for _, result in pairs]
    if any(verdict is None for verdict in verdicts):
        raise ValueError("page: expected judged results only")
    p = adjust(np.array([verdict.p for verdict in verdicts if verdict is not None]))
    entries = []
    for (claim, result), verdict, one in zip(pairs, verdicts, p, strict=True):
        assert verdict is not None
        falls = verdict.word != "undecided" and not one <= ALPHA
        entries.append(Entry(claim, result, "undecided" if falls else verdict.word, float(one)))
    return entries


def page(entries: Sequence[Entry], missing: Sequence[Claim] = ()) -> str:
    """The page as Markdown.

    Args:
        entries: of `corrected`, in the order of the page.
        missing: claims without a result.
    """
    count = Counter(entry.word for entry in entries)
    tally = ", ".join(f"{count[word]} {word}" for word in LEADS if count[word])
    lines = [
        "# Results: sentences about ReLU, held against data",
        "",
        f"{len(entries)} claim{'s' * (len(entries) != 1)}: {tally}.",
        *_made_with(entries),
        "",
        "| claim | verdict | effect (interval) | p, Holm | n | seeds | runs | time |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(entry) for entry in entries),
        "",
        *_how_to_read(),
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
    claim, verdict, facts = entry.claim, entry.verdict, entry.result.facts
    lines = [
        f"### {claim.name}",
        "",
        f"> {claim.sentence}",
        ">",
        f"> — {claim.source}",
        "",
        f"**{entry.word.capitalize()}.** {lead(replace(verdict, word=entry.word))} {verdict.text}",
    ]
    if entry.word != verdict.word:
        lines += [
            "",
            f"By itself the claim is {verdict.word} (p = {_p(verdict.p)}); it does not survive the "
            f"correction over all claims (p = {_p(entry.p)}).",
        ]
    comment = claim.comments.get(entry.word, "")
    lines += ["", comment] if comment else []
    lines += ["", *_table(verdict), ""]
    lines += [claim.beside(entry.result.table), ""] if claim.beside is not None else []
    lines += [f"![{claim.name}: {entry.word}](pictures/{claim.name}.png)", ""]
    lines += [f"*Measured:* {claim.metric} *Smallest effect of interest:* {claim.interest}", ""]
    data = f" Data: {facts['data']}." if facts.get("data") else ""
    lost = f", of which {verdict.diverged} diverged" if verdict.diverged else ""
    lines.append(f"*Design:* {claim.design}{data} {verdict.runs} rows{lost}; {verdict.seeds} seeds.")
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
    if not entries:
        return []
    machines = sorted({str(entry.result.facts.get("hardware", "unknown")) for entry in entries})
    versions: Mapping[str, str] = entries[0].result.facts.get("versions", {})
    told = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "numpy") if name in versions)
    budgets = sorted({entry.result.budget for entry in entries})
    seconds = sum(float(entry.result.facts.get("seconds", 0)) for entry in entries)
    seeds = " or ".join(f"0 to {SEEDS[budget] - 1}" for budget in budgets)
    return [
        f"Budget {', '.join(budgets)}; seeds {seeds}, unless a claim says otherwise; "
        f"{seconds / 60:.0f} minutes of computing on one core (runs that claims share are counted in each).",
        f"Made with {told} on {'; '.join(machines)}.",
    ]


def _row(entry: Entry) -> str:
    first = entry.verdict.findings[0]
    effect = f"{first.label}: {first.words}" if len(entry.verdict.findings) > 1 else first.words
    cells = (
        f"[{entry.claim.name}](#{entry.claim.name})",
        f"**{entry.word}**",
        effect,
        _p(entry.p),
        inputs(entry.result),
        str(entry.verdict.seeds),
        str(entry.verdict.runs),
        f"{float(entry.result.facts.get('seconds', 0)):.0f} s",
    )
    return f"| {' | '.join(cells)} |"


def _table(verdict: Verdict) -> list[str]:
    """What decided, and what was looked at beside it."""
    lines = [
        "| contrast | asked | effect (interval) | would find | p | pairs | shows |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_finding(finding, finding.word) for finding in verdict.findings]
    lines += [_finding(finding, f"({finding.word})") for finding in verdict.also]
    return lines


def _finding(finding: Finding, word: str) -> str:
    lost = f" ({finding.lost} lost)" if finding.lost else ""
    words = "; ".join(filter(None, (finding.words, finding.composite_words)))
    pairs = f"{finding.seeds}{lost}"
    cells = (finding.label, finding.question, words, finding.finds, _p(finding.p), pairs, word)
    return f"| {' | '.join(cells)} |"


def _how_to_read() -> list[str]:
    return [
        "How to read it. Each claim's runs, metric, smallest effect of interest and decision rule stand in "
        "`experiments/claims/<name>.py` and were fixed before this run; a design "
        "that was changed after an earlier look says so. A difference is taken within a seed "
        "(same initial weights, same batches); the seed is the unit of analysis. The interval is a "
        "bootstrap-t over seeds, at 95 % or more where several contrasts decide together. *Supported*: the "
        "whole interval lies beyond the smallest effect of interest, and an exact sign-flip test against "
        "that effect agrees; *refuted*: it lies short of it; *undecided*: neither. Of a sentence "
        "with several "
        "contrasts, *mixed*: some are refuted; *partly open*: none is, and some are undecided; the text says "
        "which. *Would find*: the smallest effect that these seeds would call supported four times "
        "in five, by "
        "the spread that they have; “none” where they are too few for any. Most rules were fixed "
        "after a rehearsal on the "
        "same digits, so that a verdict on digits confirms nothing on new data. n: on so many inputs "
        "is a unit "
        "looked at; the share of dead units falls as n grows. For a claim of no effect the question is "
        "equivalence (two one-sided tests, 90 % interval). p is of the test against the smallest effect of "
        "interest, not against 0, and corrected over all claims (Holm). Rows in parentheses were looked at "
        "and decide nothing. A pair with a diverged run is lost, never 0 %; “dead or diverged” counts its "
        "diverged runs as wholly dead.",
    ]


def _p(p: float) -> str:
    if np.isnan(p):
        return "–"
    return f"{p:.2g}" if p >= 0.001 else "< 0.001"
