"""Events are dated by the first column that leaves its own past."""

from __future__ import annotations

import numpy as np
import pytest
from step_tables import T, at, quiet

from harness.attribution.events import calm_before, events


@pytest.mark.parametrize("seed", range(5))
def test_a_calm_training_has_no_events(seed: int) -> None:
    assert events(quiet(seed)) == []


def test_inputs_name_the_event_though_loss_and_gradient_follow_in_the_same_step() -> None:
    frame = quiet()
    at(frame, 100, input_rms=4.0, loss=5.0, grad_norm=6.0, update_norm=6.0)
    (event, *_) = events(frame)
    assert (event.step, event.label, event.column) == (100, "input_shift", "input_rms")
    assert event.ratio == pytest.approx(4, rel=0.1)


def test_inputs_that_come_back_are_a_bad_batch() -> None:
    frame = quiet()
    at(frame, 100, input_rms=30.0, loss=9.0, once=1)
    assert [(e.step, e.label) for e in events(frame)] == [(100, "bad_batch")]


def test_a_mean_that_moves_is_seen_where_the_size_hardly_does() -> None:
    frame = quiet()
    frame.loc[frame["step"] >= 80, "input_mean"] += 0.5
    assert next((e.step, e.label, e.column) for e in events(frame)) == (80, "input_shift", "input_mean")


def test_a_learning_rate_that_jumps_is_the_step_size() -> None:
    frame = quiet()
    at(frame, 120, lr=30.0, update_norm=30.0)
    assert next((e.step, e.label, e.column) for e in events(frame)) == (120, "step_size", "lr")


def test_warm_up_and_decay_of_the_learning_rate_are_no_events() -> None:
    frame = quiet()
    course = np.minimum(1, np.arange(1, T + 1) / 50) * (1 + np.cos(np.pi * np.arange(T) / T)) / 2
    frame["lr"] *= course
    frame["update_norm"] *= course
    assert events(frame) == []


def test_what_follows_without_a_pause_is_one_episode() -> None:
    frame = quiet()
    at(frame, 100, loss=9.0, grad_norm=9.0, update_norm=9.0)
    assert [event.step for event in events(frame)] == [100]
    at(frame, 115, input_rms=5.0)  # no consequence of these
    assert [(event.step, event.label) for event in events(frame)] == [(100, "labels"), (115, "input_shift")]


def test_a_gradient_without_a_loss_is_the_step_size() -> None:
    frame = quiet()
    at(frame, 90, grad_norm=100.0, update_norm=100.0, once=1)
    assert [(e.step, e.label, e.column) for e in events(frame)] == [(90, "step_size", "grad_norm")]


def test_what_was_written_by_others_comes_before_everything() -> None:
    frame = quiet()
    frame.loc[frame["step"] == 60, "written_norm"] = 5.0
    at(frame, 60, loss=3.0, grad_norm=4.0)
    (event, *_) = events(frame)
    assert (event.step, event.label) == (60, "surgery")
    assert "25 %" in event.text


def test_weights_that_are_written_at_every_step_are_a_habit_and_no_event() -> None:
    frame = quiet()
    frame["written_norm"] = 1.0  # 5 % of the norm, say a weight constraint
    assert events(frame.iloc[1:]) == [] or events(frame)[0].step == 1


def test_columns_that_were_not_observed_say_nothing() -> None:
    frame = quiet()
    at(frame, 90, grad_norm=50.0)
    frame[["loss", "input_mean", "input_rms"]] = np.nan
    (event,) = events(frame)[:1]
    assert event.column == "grad_norm"
    assert "no loss was given" in event.text


def test_calm_is_judged_by_the_twenty_steps_before() -> None:
    frame = quiet()
    assert calm_before(frame, 100)
    frame.loc[frame["step"].between(80, 99), "update_norm"] = 5.0
    assert not calm_before(frame, 100)
    assert calm_before(frame, 1)


def test_fewer_than_two_steps_have_no_events() -> None:
    assert events(quiet().head(1)) == []


def test_what_lasts_after_a_symptom_is_no_new_event() -> None:
    frame = quiet()
    at(frame, 98, update_norm=2.0, once=1)
    at(frame, 99, loss=8.0, grad_norm=8.0)
    found = events(frame)
    assert [event.step for event in found] == [99]
    assert found[0].inner


@pytest.mark.parametrize(("column", "per_step"), [("input_mean", 0.02), ("input_rms", 0.02)])
def test_a_slow_drift_of_the_inputs_is_an_event_and_what_follows_a_symptom(
    column: str, per_step: float
) -> None:
    frame = quiet()
    frame[column] += per_step * frame["step"]
    frame.loc[frame["step"] >= 150, ["grad_norm", "update_norm"]] *= 4
    drift, gradient = events(frame)
    assert (drift.label, drift.inner) == ("input_shift", False)
    assert 40 < drift.step < 110
    assert "the inputs have drifted" in drift.text
    assert (gradient.step, gradient.inner) == (150, True)


def test_a_small_batch_that_is_off_by_chance_is_no_bad_batch() -> None:
    """Nothing follows from it: neither the loss nor the gradient is unusual."""
    frame = quiet()
    frame.loc[frame["step"] == 100, "input_mean"] = 1.0
    assert events(frame) == []
    at(frame, 100, grad_norm=3.0, once=1)
    assert events(frame)[0].label == "bad_batch"


def test_an_optimizer_that_was_replaced_is_an_event() -> None:
    frame = quiet()
    frame.loc[frame["step"] >= 100, ["lr", "grad_norm", "update_norm", "weight_norm"]] = np.nan
    at(frame, 101, loss=9.0)
    replaced, loss = events(frame)
    assert (replaced.step, replaced.label) == (100, "unknown")
    assert "another one trains, unseen" in replaced.text
    assert (loss.step, loss.inner) == (101, True)
