"""The chooser against its rules: what is tried, what is not repeated, when nothing is left."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.attribution.labels import LABELS
from harness.remedies.chooser import ACTS, SLOWEST, TABLE, Chooser

LIFT, REDO, SLOWER = ("bias_lift",), ("redo",), ("lower_rate", "bias_lift")
TWO = {"bias_init": (LIFT, REDO), "step_size": (SLOWER,), "none": (), "unknown": (REDO,)}


def chooser(above: float = 0.1, every: int = 10) -> Chooser:
    return Chooser(above, every, TWO)


def test_nothing_is_due_at_the_level_and_something_above_it() -> None:
    one = chooser(above=0.25)
    assert [one.is_due(5, share) for share in (0.0, 0.25, 0.26, 1.0, float("nan"))] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_an_act_is_given_time_and_repeated_while_it_helps() -> None:
    one = chooser()
    assert one.next("bias_init", 0.9) == LIFT
    one.done(5, 0.9, LIFT)
    assert [one.is_due(step, 0.5) for step in (6, 14, 15)] == [False, False, True]
    assert one.next("bias_init", 0.5) == LIFT


def test_what_had_no_effect_is_not_repeated_until_the_share_has_been_low_again() -> None:
    one = chooser()
    one.done(5, 0.9, one.next("bias_init", 0.9))
    assert one.next("bias_init", 0.9) == REDO
    one.done(15, 0.9, REDO)
    assert one.next("bias_init", 0.95) == ()
    assert one.give_up(0.95)
    assert not one.is_due(100, 0.95)
    assert one.is_due(100, 0.96), "more have died"
    assert not one.is_due(110, 0.1), "the episode is over"
    assert one.is_due(120, 0.9)
    assert one.next("bias_init", 0.9) == LIFT


def test_acts_that_failed_for_one_cause_are_not_tried_for_another() -> None:
    one = chooser()
    one.fail(REDO)
    assert one.next("unknown", 0.5) == ()
    assert one.next("bias_init", 0.5) == LIFT


def test_a_cause_without_acts_is_left_alone() -> None:
    one = chooser()
    assert one.next("none", 0.5) == ()
    assert not one.give_up(0.5), "nothing was tried"


def test_the_rate_is_lowered_a_few_times_at_most() -> None:
    one = chooser()
    shares = [0.9 * 0.8**k for k in range(SLOWEST + 1)]  # each has an effect
    for k, share in enumerate(shares[:-1]):
        assert one.next("step_size", share) == SLOWER
        one.done(10 * k, share, SLOWER)
    assert one.lowered == SLOWEST
    assert one.next("step_size", shares[-1]) == ()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from(("bias_init", "step_size", "decay"))), max_size=20),
    st.integers(0, 20),
)
def test_a_chooser_goes_on_from_its_state(censuses: list[tuple[float, str]], broken: int) -> None:
    def choices(restarted: int) -> list[tuple[str, ...] | None]:
        one, found = chooser(every=2), []
        for step, (share, cause) in enumerate(censuses):
            if step == restarted:
                state, one = one.state_dict(), chooser(every=2)
                one.load_state_dict(state)
            acts = one.next(cause, share) if one.is_due(step, share) else None
            if acts:
                one.done(step, share, acts)
            elif acts is not None:
                one.give_up(share)
            found.append(acts)
        return found

    assert choices(broken) == choices(-1)


def test_the_table_knows_causes_and_acts() -> None:
    assert set(TABLE) == set(LABELS)
    assert {name for rows in TABLE.values() for acts in rows for name in acts} <= set(ACTS)
    assert all(len(set(rows)) == len(rows) for rows in TABLE.values())


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"above": 1.0}, "above: expected a number at least 0 and below 1"),
        ({"above": -0.1}, "above: expected"),
        ({"every": 0}, "every: expected a whole number of at least 1"),
        ({"table": {"unknown": (("pray",),)}}, "table: expected acts of bias_lift, .*'pray'"),
    ],
)
def test_bad_arguments_are_refused(numbers: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Chooser(**numbers)  # type: ignore[arg-type]
