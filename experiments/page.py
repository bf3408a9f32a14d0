"""RESULTS.md: every claim with its verdict, effect, interval, seeds, runs, time and picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.budgets import SEEDS
from experiments.claim import DATA_SETS, Claim
from experiments.confirmation import together
from experiments.shelf import Result
from experiments.verdicts import ALPHA, Finding, Verdict, Word
from harness.compare.correction import adjust

COLUMNS = ("effect (interval)", "p, Holm", "n", "seeds", "runs", "time")  # of the table, at its end
SETTING = (
    "Setting, unless a claim says otherwise. An MLP with three hidden layers of 64 ReLUs; weights normal "
    "with deviation √(2 / fan-in) (He), the head's too, biases 0; SGD without momentum at a constant 0.1;"
    " the mean cross-entropy of batches of 32 in a new random order per epoch, the rest of an epoch left "
    "out; 10 epochs (at the budget small). Pixels lie in [0, 1]; *standardised* means less the mean of "
    "the training images and over their deviation, one number each per channel. Digits are scikit-"
    "learn's, 1,437 for training and 360 held out; of the other sets, 1,437 random training images and "
    "the whole test set (of CIFAR-10 the first 1,000). A unit is dead if its pre-activation is at most 0 "
    "on all n held-out images; the dead share is of all hidden units."
)
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
        word: the verdict over these after Holm's correction over all claims of the page; alone: before it.
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


def corrected(pairs: Sequence[tuple[Claim, Sequence[Result]]]) -> list[Entry]:
    """Correct the claims' p-values together (Holm 1979); what does not survive is undecided.

    Args:
        pairs: each claim with its results, at least one.

    Raises:
        ValueError: a result that is not judged.
    """
    order = ["", *DATA_SETS]
    sorted_ = [(claim, sorted(results, key=lambda one: order.index(one.data))) for claim, results in pairs]
    found = [together({one.data: _judged(one) for one in results}) for _, results in sorted_]
    corrected_p = adjust(np.array([p for _, p, _ in found]))
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
        told = "; ".join(f"{DATA_SETS[one.data]}: {_judged(one).word}" for one in others)
        lines[-1] += f" On data that were looked at when the rule was made: {told}."
    if entry.word != entry.alone:
        lines += [
            "",
            f"By itself the claim is {entry.alone}; it does not survive the correction over all claims "
            f"(p = {_p(entry.p)}).",
        ]
    comment = claim.comments.get(entry.word, "")
    lines += ["", comment] if comment else []
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
    lines += [f"*Measured:* {claim.metric} *Smallest effect of interest:* {claim.interest}", ""]
    data = [str(one.facts["data"]) for one in entry.results if one.facts.get("data")]
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
    told = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "numpy") if name in versions)
    budgets = sorted({result.budget for result in results})
    seconds = sum(float(result.facts.get("seconds", 0)) for result in results)
    seeds = " or ".join(f"0 to {SEEDS[budget] - 1}" for budget in budgets)
    data = [one for one in DATA_SETS if any(result.data == one for result in results)]
    return [
        f"Budget {', '.join(budgets)}; seeds {seeds}, unless a claim says otherwise; "
        f"{seconds / 60:.0f} minutes of computing on one core (runs that claims share are counted in each).",
        f"Made by `python -m experiments --all --data {','.join(data) or 'digits'}` "
        f"with {told} on {'; '.join(machines)}.",
    ]


def _row(entry: Entry, sets: Sequence[str]) -> str:
    first = entry.verdict.findings[0]
    effect = f"{first.label}: {first.words}" if len(entry.verdict.findings) > 1 else first.words
    words: dict[str, Word] = {one.data: _judged(one).word for one in entry.results}
    cells = (
        f"[{entry.claim.name}](#{entry.claim.name})",
        f"**{entry.word}**",
        *(_cell(one, words, entry.on) for one in sets),
        effect,
        _p(entry.p),
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
        "| contrast | asked | data | n | effect (interval) | would find | p | pairs | shows |",
        "|---|---|---|---|---|---|---|---|---|",
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
        "; ".join(filter(None, (finding.words, finding.composite_words))),
        finding.finds,
        _p(finding.p),
        f"{finding.seeds}{lost}",
        finding.word if deciding else f"({finding.word})",
    )
    return f"| {' | '.join(cells)} |"


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


def _how_to_read() -> list[str]:
    return [
        "How to read it. Each claim's runs, metric, smallest effect of interest and decision rule stand "
        "in `experiments/claims/<name>.py` and were fixed before this run; a design that was changed "
        "after an earlier look says so. A difference is taken within a seed (same initial weights, same "
        "batches); the seed is the unit of analysis. The interval is a bootstrap-t over seeds, at 95 % or"
        " more where several contrasts decide together. *Supported*: the whole interval lies beyond the "
        "smallest effect of interest, and an exact sign-flip test against that effect agrees; *refuted*: "
        "it lies short of it; *undecided*: neither. Of a sentence with several contrasts, *mixed*: some "
        "are refuted; *partly open*: none is, and some are undecided; the text says which. *Would find*: "
        "the smallest effect that these seeds would call supported four times in five, by the spread that"
        " they have; “none” where they are too few for any. Most rules were fixed after a rehearsal on "
        "the digits, and MNIST had been looked at: verdicts there confirm nothing. What decides is data "
        "that nobody had looked at, with the same design; a claim is mixed if it is refuted on one of "
        "them, and its effect and n in the first table are of the first of them. n: on so many inputs is "
        "a unit looked at; the share of dead units falls as n grows (claim n_of_inputs). For a claim of "
        "no effect the question is equivalence (two one-sided tests, 90 % interval). p is of the test "
        "against the smallest effect of interest, not against 0, and corrected over all claims (Holm). "
        "Rows in parentheses were looked at and decide nothing. A pair with a diverged run is lost, never"
        " 0 %; “dead or diverged” counts its diverged runs as wholly dead.",
    ]


def _p(p: float) -> str:
    if np.isnan(p):
        return "–"
    return f"{p:.2g}" if p >= 0.001 else "< 0.001"
