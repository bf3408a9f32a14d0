"""Stop a training early when enough of its units are dead."""

from __future__ import annotations

from harness.config import RunSpec


def stop_reason(spec: RunSpec, step: int, dead: int, units: int) -> str:
    """Return why a training stops at a census; "" if it continues.

    Args:
        spec: the run; `train.stop_when_dead` is read.
        step: step of the census; training never stops at step 0.
        dead: number of dead units.
        units: number of observed units.

    Example:
        >>> from harness.config import compose
        >>> spec = compose(["train.stop_when_dead=0.9"])
        >>> stop_reason(spec, 50, 95, 100), stop_reason(spec, 50, 89, 100), stop_reason(compose(), 50, 9, 9)
        ('95.0 % of 100 units were dead at step 50 (train.stop_when_dead=0.9)', '', '')
    """
    limit = spec.train.stop_when_dead
    if limit is None or not step or not units or dead < limit * units:
        return ""
    share = f"{100 * dead / units:.1f} % of {units:,} units"
    return f"{share} were dead at step {step:,} (train.stop_when_dead={limit:g})"
