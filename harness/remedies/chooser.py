"""The chooser: which acts to try for which cause, and which of them have had no effect.

It needs neither a model nor torch: it takes dead shares and causes and returns names of acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

BIAS_LIFT, REDO, REDRAW = "bias_lift", "redo", "redraw"
LOWER_RATE, NO_DECAY = "lower_rate", "no_decay"
Acts = tuple[str, ...]  # performed together, in this order
Table = Mapping[str, tuple[Acts, ...]]  # cause → acts to try, best first

#: The acts that did best in short trainings, by accuracy first and dead share second; `chosen_remedies` in
#: experiments/claims compares the table with fixed remedies. Some rows are untested and copied from similar
#: causes: bias_lr and target_scale from step_size, surgery and constant from bias_init, unknown from labels.
#: norm_stats and what is wrong with the loss have no acts: changing units does not remove their cause.
TABLE: Table = {
    "none": (),
    "bias_init": ((BIAS_LIFT,), (REDRAW,)),
    "weight_init": ((REDRAW,), (LOWER_RATE, REDRAW)),
    "input_offset": ((LOWER_RATE, REDRAW, BIAS_LIFT), (LOWER_RATE, BIAS_LIFT)),
    "input_shift": ((REDO,), (BIAS_LIFT,)),
    "bad_batch": ((BIAS_LIFT,), (REDO,)),
    "step_size": ((LOWER_RATE, BIAS_LIFT),),
    "labels": ((REDO,), (BIAS_LIFT,)),
    "decay": ((NO_DECAY, REDRAW),),
    "bias_lr": ((LOWER_RATE, BIAS_LIFT),),
    "norm_stats": (),
    "constant": ((BIAS_LIFT,), (REDRAW,)),
    "surgery": ((BIAS_LIFT,), (REDRAW,)),
    "forward": (),
    "unbounded_loss": (),
    "loss_penalty": (),
    "target_scale": ((LOWER_RATE, BIAS_LIFT),),
    "unknown": ((REDO,), (BIAS_LIFT,)),
}
ACTS = (BIAS_LIFT, REDO, REDRAW, LOWER_RATE, NO_DECAY)
SLOWEST = 4  # how often the learning rate is lowered at most
LESS = 0.9  # acts had an effect if the dead share is at most this fraction of the former one


@dataclass
class _Memory:
    acted_at: int = -1  # step of the last acts; -1: none yet
    share: float = 1.0  # dead share before them
    acts: list[str] = field(default_factory=list)
    failed: list[list[str]] = field(default_factory=list)  # in this episode
    tried: bool = False  # whether anything was tried in this episode
    left_at: float = 2.0  # dead share at which nothing was left to try; above 1: not yet
    lowered: int = 0  # how often the learning rate was lowered


class Chooser:
    """Chooses acts at the censuses of one training.

    An episode lasts as long as the dead share stays above a threshold. Acts without effect are not repeated
    in the same episode.

    Args:
        above: dead share above which to act, at least 0 and below 1.
        every: steps to wait for the effect of an act, at least 1.
        table: cause → acts; causes that it lacks are treated as "unknown".

    Raises:
        ValueError: a number is out of range, or an act is unknown.

    Example:
        >>> chooser = Chooser(above=0.1, every=50, table={"unknown": (("bias_lift",), ("redo",))})
        >>> chooser.is_due(100, 0.05), chooser.is_due(150, 0.3)
        (False, True)
        >>> chooser.next("decay", 0.3)
        ('bias_lift',)
        >>> chooser.done(150, 0.3, ("bias_lift",))
        >>> chooser.is_due(199, 0.3), chooser.is_due(200, 0.3), chooser.next("decay", 0.3)
        (False, True, ('redo',))
    """

    def __init__(self, above: float = 0.1, every: int = 10, table: Table | None = None) -> None:
        if not 0 <= above < 1:
            raise ValueError(f"above: expected a number at least 0 and below 1, but got {above!r}")
        if every < 1:
            raise ValueError(f"every: expected a whole number of at least 1, but got {every!r}")
        self._above, self._every, self._table = above, every, TABLE if table is None else table
        wrong = {name for rows in self._table.values() for acts in rows for name in acts} - set(ACTS)
        if wrong:
            raise ValueError(f"table: expected acts of {', '.join(ACTS)}, but got {min(wrong)!r}")
        self._memory = _Memory()

    @property
    def lowered(self) -> int:
        """How often the learning rate has been lowered."""
        return self._memory.lowered

    def is_due(self, step: int, share: float) -> bool:
        """Whether a decision is due at a census.

        Args:
            step: completed steps.
            share: share of the observed units that are dead; NaN if none were observed.
        """
        memory = self._memory
        if not share > self._above:
            memory.acts, memory.failed, memory.tried, memory.left_at = [], [], False, 2.0
            return False
        if memory.left_at <= 1 and share <= memory.left_at:  # nothing left to try, and no more deaths since
            return False
        return memory.acted_at < 0 or step - memory.acted_at >= self._every

    def next(self, cause: str, share: float) -> Acts:
        """Return the acts to try; () if none is left.

        Args:
            cause: one of `harness.attribution.labels.LABELS`.
            share: share of the observed units that are dead.
        """
        memory = self._memory
        if memory.acts and share > LESS * memory.share:
            self.fail(tuple(memory.acts))
        rows = self._table.get(cause, self._table.get("unknown", ()))
        if memory.lowered >= SLOWEST:
            rows = tuple(acts for acts in rows if LOWER_RATE not in acts)
        fresh = [acts for acts in rows if list(acts) not in memory.failed]
        slower = [acts for acts in rows if LOWER_RATE in acts]  # repeatable: a still lower rate is a new act
        return next(iter([*fresh, *slower]), ())

    def done(self, step: int, share: float, acts: Acts) -> None:
        """Note that acts were performed.

        Args:
            step: completed steps.
            share: share of the observed units that were dead before them.
            acts: result of `next`.
        """
        memory = self._memory
        memory.acted_at, memory.share, memory.acts, memory.left_at = step, share, list(acts), 2.0
        memory.tried = True
        memory.lowered += LOWER_RATE in acts

    def fail(self, acts: Acts) -> None:
        """Note that acts had no effect, or found nothing to act on."""
        memory = self._memory
        if list(acts) not in memory.failed:
            memory.failed.append(list(acts))
        memory.acts = []

    def give_up(self, share: float) -> bool:
        """Note that nothing is left to try unless more units die.

        Returns:
            Whether something was tried in this episode.
        """
        self._memory.left_at = share
        return self._memory.tried

    def state_dict(self) -> dict[str, Any]:
        """State as plain values."""
        return asdict(self._memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._memory = _Memory(**state)
