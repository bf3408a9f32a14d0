"""Definitions of the terms in a report, and the methods behind its numbers."""

from __future__ import annotations

from harness.detector.states import Thresholds
from harness.report.html.page import Section, Terms


def definitions(thresholds: Thresholds, *, sweep: bool = False) -> Section:
    """The section on method and definitions.

    Args:
        thresholds: thresholds of the states in the report.
        sweep: whether runs are compared.
    """
    confidence = f"{100 * thresholds.confidence:g} %"
    unit = [
        (
            "unit, site",
            "A unit is one output feature of a layer (for convolutions and sequences every position is an "
            "input of its own); a site is an activation function with the layer that feeds it. The output "
            "layer is none.",
        ),
        ("gate, rate", "The gate is open where |f′(z)| > ε; the rate is the share of inputs with it open."),
        (
            "dead",
            "The gate opened on none of n inputs. That is a statement about these n: the true rate lies, "
            f"with {confidence} confidence, below 1 − {1 - thresholds.confidence:.2g}^(1/n) (Clopper and "
            "Pearson's exact bound).",
        ),
        (
            "born dead",
            "Dead before the first step, on the held-out inputs; where there are none, dead in the first "
            "census, whose step the verdict names.",
        ),
        (
            "died, revived",
            "Dead, or alive again, in some census after having been otherwise before.",
        ),
        (
            "starved",
            "The gate opens, yet the gradient is exactly 0: everything behind the unit is dead, or never "
            "selects it.",
        ),
        ("rare", f"Alive, with a rate below {100 * thresholds.rare:g} %."),
        (
            "always on",
            "The gate was open on every input. A ReLU, or another activation that is one straight line where "
            "its gate is open, is then linear; tanh, GELU, CReLU or a leaky ReLU are not.",
        ),
        (
            "diverged, not finite, unobserved",
            "States of their own, never counted as dead. Shares are of the observed units; where none of "
            "them is finite there is no share.",
        ),
    ]
    compared = [
        (
            "seeds as blocks",
            "The unit of analysis is the seed, not the neuron or the run: settings are compared within the "
            "same seed (same initial weights and batches), intervals are bootstrapped over seeds, and "
            "p-values come from sign flips of the paired differences (all up to 20 seeds, else 9,999), "
            "corrected over the whole table (Westfall and Young's step-down max-T). Settings without common "
            "seeds are compared by Welch's interval and a permutation test.",
        ),
        (
            "survival",
            "Kaplan and Meier's estimate over units that were alive at first; its interval treats the units "
            "of all runs of a seed as one cluster, since they are not independent.",
        ),
    ]
    return Section("Method and definitions", [Terms([*unit, *(compared if sweep else ())])])
