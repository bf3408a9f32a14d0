"""Decision rules: what one contrast shows against its margin, and what a claim's contrasts show together.

A contrast is one difference per seed. Its interval over seeds is set against the smallest effect of
interest, which is fixed before the run: an effect surely as large supports, one surely smaller refutes,
anything else is open. The test beside it is the exact sign flip of the same question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student

from experiments.units import POINTS, Unit
from harness.compare.bootstrap import mean_interval
from harness.compare.permutation import sign_flip

ALPHA, POWER = 0.05, 0.8
Word = Literal["supported", "refuted", "mixed", "partly open", "undecided"]


@dataclass(frozen=True)
class Part:
    """One contrast that a claim rests on.

    Attributes:
        label: what is contrasted, in words that complete "with …".
        differences: one per seed, NaN where a seed has none (a run of its pair diverged).
        margin: the smallest effect of interest; with its sign: -0.1 asks for a fall by at least 0.1.
        within: whether the question is instead if the effect lies within ±margin (equivalence).
        unit: of the effect.
        arm, baseline: means over the seeds, for the words; NaN where there are none.
        composite: differences of "dead or diverged", where a diverged run counts as wholly dead; None where
            the outcome is another one, or no run diverged.
    """

    label: str
    differences: np.ndarray
    margin: float
    within: bool = False
    unit: Unit = POINTS
    arm: float = float("nan")
    baseline: float = float("nan")
    composite: np.ndarray | None = None


@dataclass(frozen=True)
class Finding:
    """What a part shows.

    Attributes:
        label, margin, within, unit, arm, baseline: of the part.
        word: supported, refuted or undecided.
        effect: mean difference over the seeds; low, high: its interval.
        p: of the test that belongs to the word.
        confidence: of the interval.
        seeds: pairs that have a difference; lost: pairs that have none.
        power: how far beyond the margin an effect has to lie for these seeds to find it four times in five.
        composite: mean, low and high of "dead or diverged"; empty where the part has none.
    """

    label: str
    word: Word
    effect: float
    low: float
    high: float
    p: float
    margin: float
    within: bool
    unit: Unit
    confidence: float
    seeds: int
    lost: int
    arm: float = float("nan")
    baseline: float = float("nan")
    power: float = float("nan")
    composite: tuple[float, ...] = ()

    @property
    def words(self) -> str:
        """Effect and interval, as they are printed."""
        if not self.seeds:
            return "no pair of runs has the outcome"
        change = self.unit.change(self.effect)
        lost = f"; {self.lost} of {self.seeds + self.lost} pairs lost" if self.lost else ""
        if np.isnan(self.low):
            return f"{change} (one seed: no interval{lost})"
        return f"{change} ({self._between(self.low, self.high)}{lost})"

    @property
    def composite_words(self) -> str:
        """“Dead or diverged”, as it is printed; empty where it is the same as the effect."""
        if not self.composite:
            return ""
        mean, low, high = self.composite
        return f"dead or diverged: {self.unit.change(mean)} ({self._between(low, high)})"

    @property
    def finds(self) -> str:
        """The smallest effect that these seeds would find, as it is printed."""
        if np.isnan(self.power):
            return "none"
        sign = -1 if self.margin < 0 and not self.within else 1
        least = abs(self.margin) - self.power if self.within else self.margin + sign * self.power
        if self.within:
            return f"within ±{self.unit.size(least)}" if least > 0 else "none"
        if self.unit == POINTS and abs(least) > 1:
            return "none"
        return self.unit.change(least)

    def _between(self, low: float, high: float) -> str:
        return f"{self.unit.change(low, bare=True)} … {self.unit.change(high, bare=True)}"

    @property
    def question(self) -> str:
        """What was asked of the effect."""
        size = self.unit.size(abs(self.margin))
        if self.within:
            return f"within ±{size}"
        return f"{'more' if self.margin >= 0 else 'less'} by at least {size}"


@dataclass(frozen=True)
class Verdict:
    """What the data say about a claim.

    Attributes:
        word: supported or refuted (all parts), mixed (some parts are refuted), partly open (none is refuted,
            some are undecided), undecided (all are).
        text: the verdict with its condition, in words.
        findings: of the parts that decide; the first is the effect that is shown.
        also: of parts that are told but do not decide.
        p: of the claim, to be corrected over all claims; NaN without a test.
        runs, seeds, diverged: of the table judged.
    """

    word: Word
    text: str
    findings: tuple[Finding, ...]
    also: tuple[Finding, ...] = ()
    p: float = float("nan")
    runs: int = 0
    seeds: int = 0
    diverged: int = 0


def find(part: Part, alpha: float = ALPHA) -> Finding:
    """Set one contrast against its margin.

    Supported or refuted need both: the interval on one side of the margin, and a sign-flip test at the
    same level. So two seeds never decide, however equal they are. Where more than half of the pairs are
    lost, nothing is decided.

    Args:
        part: the contrast.
        alpha: level; the interval's confidence is 1 - alpha (for equivalence 1 - 2 alpha, the two one-sided
            tests of Schuirmann 1987).

    Example:
        >>> seeds = np.array([0.30, 0.32, 0.28, 0.31, 0.29, 0.33, 0.30, 0.27])
        >>> [find(Part("a", seeds, margin)).word for margin in (0.1, 0.3, 0.5)]
        ['supported', 'undecided', 'refuted']
        >>> find(Part("no effect", seeds - 0.3, 0.1, within=True)).word
        'supported'
    """
    d = np.asarray(part.differences, float)
    d, lost = d[~np.isnan(d)], int(np.isnan(d).sum())
    confidence = 1 - (2 * alpha if part.within else alpha)
    bounds = (-1.0, 1.0) if part.unit == POINTS else (-np.inf, np.inf)
    low, high = mean_interval(d, confidence, bounds)
    word, p = _equivalent(part, d, low, high) if part.within else _beyond(part, d, low, high)
    if not p <= alpha or lost > len(d):
        word = "undecided"
    effect = float(d.mean()) if len(d) else float("nan")
    return Finding(
        part.label,
        word,
        effect,
        low,
        high,
        p,
        part.margin,
        part.within,
        part.unit,
        confidence,
        len(d),
        lost,
        part.arm,
        part.baseline,
        smallest(d, alpha),
        _mean_of(part.composite, confidence, bounds),
    )


def smallest(differences: np.ndarray, alpha: float) -> float:
    """How far beyond its margin an effect has to lie to be found with probability `POWER`.

    From the t distribution and the deviation of the differences as they are (a plan made beforehand would
    have to guess it). NaN if no effect can be found: a sign-flip test of n seeds has no p below 2 / 2^n.

    Args:
        differences: one per seed, finite.
        alpha: level of the test.

    Example:
        >>> seeds = np.array([0.30, 0.32, 0.28, 0.31, 0.29, 0.33, 0.30, 0.27])
        >>> round(smallest(seeds, 0.05), 3), smallest(seeds[:5], 0.05)
        (0.023, nan)
    """
    n = len(differences)
    if n < 2 or 2 / 2.0**n > alpha:
        return float("nan")
    quantiles = student.ppf(1 - alpha / 2, n - 1) + student.ppf(POWER, n - 1)
    return float(quantiles * differences.std(ddof=1) / n**0.5)


def judge(*parts: Part, also: Sequence[Part] = (), alpha: float = ALPHA) -> Verdict:
    """What the parts of a claim come to.

    All supported: supported. All refuted: refuted. Some refuted: mixed. None refuted, and some undecided
    beside supported ones: partly open. All undecided: undecided.

    With k parts each is judged at the level alpha / k (Bonferroni). The claim's
    p is the largest of the parts' where they agree (intersection–union), else k times the largest of
    the parts that were decided.

    Args:
        parts: that decide.
        also: that are told beside them, and decide nothing.
        alpha: level of the claim.

    Raises:
        ValueError: no part.

    Example:
        >>> seeds = np.array([0.30, 0.32, 0.28, 0.31, 0.29, 0.33, 0.30, 0.27])
        >>> judge(Part("SGD", seeds, 0.1), Part("Adam", seeds - 0.3, 0.1)).word
        'mixed'
    """
    if not parts:
        raise ValueError("judge: expected at least one part that decides, but got none")
    k = len(parts)
    found = tuple(find(part, alpha / k) for part in parts)
    beside = tuple(find(part, alpha) for part in also)
    words = {finding.word for finding in found}
    several: Word = "mixed" if "refuted" in words else "partly open"
    word = found[0].word if len(words) == 1 else several
    decided = [finding.p for finding in found if finding.word != "undecided"]
    if not decided:
        p = max(finding.p for finding in found)
    elif len(words) == 1:
        p = max(decided)
    else:
        p = min(1.0, k * max(decided))
    return Verdict(word, _text(found), found, beside, p)


def _mean_of(values: np.ndarray | None, confidence: float, bounds: tuple[float, float]) -> tuple[float, ...]:
    """Mean and interval; nothing of nothing."""
    if values is None or not len(values):
        return ()
    return (float(values.mean()), *mean_interval(values, confidence, bounds))


def _beyond(part: Part, d: np.ndarray, low: float, high: float) -> tuple[Word, float]:
    """Whether the effect is at least the margin, on the margin's side of 0."""
    if part.margin >= 0:
        word: Word = "supported" if low >= part.margin else "refuted" if high <= part.margin else "undecided"
    else:
        word = "supported" if high <= part.margin else "refuted" if low >= part.margin else "undecided"
    return word, sign_flip(d - part.margin)


def _equivalent(part: Part, d: np.ndarray, low: float, high: float) -> tuple[Word, float]:
    """Whether the effect lies within ±margin, by two one-sided tests."""
    margin = abs(part.margin)
    sides = [sign_flip(d + margin), sign_flip(d - margin)]
    if -margin <= low and high <= margin:
        return "supported", max(sides) / 2
    if low >= margin or high <= -margin:
        return "refuted", min(1.0, max(sides))
    return "undecided", max(sides)


def _text(found: Sequence[Finding]) -> str:
    """One sentence per word, each naming its parts."""
    if len(found) == 1:
        return f"{found[0].label[:1].upper()}{found[0].label[1:]}: {found[0].words}."
    leads = (("supported", "Holds for"), ("refuted", "Does not hold for"), ("undecided", "Open for"))
    sentences = []
    for word, lead in leads:
        mine = [f"{finding.label}: {finding.words}" for finding in found if finding.word == word]
        if mine:
            sentences.append(f"{lead} {'; '.join(mine)}.")
    return " ".join(sentences)
