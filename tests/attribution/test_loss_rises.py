"""A loss that rises: by the labels, by itself, or by the steps before."""

from __future__ import annotations

import numpy as np
import pytest
from step_tables import T, at, loss_alone, quiet

from harness.attribution.events import events


def test_a_loss_that_rises_alone_and_stays_is_the_labels() -> None:
    frame = quiet()
    at(frame, 90, loss=4.0, grad_norm=3.5)
    assert next((e.step, e.label) for e in events(frame)) == (90, "labels")


def test_a_loss_that_rises_after_a_longer_update_is_the_step_size() -> None:
    frame = quiet()
    frame.loc[frame["step"] == 89, "update_norm"] *= 2.5
    at(frame, 90, loss=4.0, grad_norm=3.5)
    assert next((e.step, e.label) for e in events(frame)) == (90, "step_size")


def test_labels_break_under_steps_that_training_has_stood_from_the_start() -> None:
    frame = quiet()
    frame["update_norm"] *= 15 * np.linspace(2, 1, T)  # 3 % of the parameters' norm, then ever less
    at(frame, 150, loss=40.0, grad_norm=9.0)
    assert [(e.step, e.label, e.inner) for e in events(frame)] == [(150, "labels", False)]


def test_a_loss_that_rises_early_or_under_longer_steps_is_no_change_of_the_labels() -> None:
    early, longer = quiet(), quiet()
    early["update_norm"] *= 15
    at(early, 25, loss=40.0)
    longer["update_norm"] *= 15 * np.linspace(0.5, 1, T)
    at(longer, 150, loss=40.0)
    for frame in (early, longer):
        event = events(frame)[0]
        assert (event.label, event.inner) == ("step_size", True)
        assert "steps of" in event.text
        assert "as ever" not in event.text


def test_one_update_that_noise_makes_longer_does_not_take_the_labels_blame() -> None:
    frame = quiet()
    frame["update_norm"] = 0.02 * np.exp(0.2 * np.random.default_rng(0).normal(size=T))
    frame.loc[frame["step"] == 89, "update_norm"] = 0.034
    at(frame, 90, loss=4.0)
    assert events(frame)[0].label == "labels"


@pytest.mark.parametrize("growth", [1.5, 3.0, 100.0])
def test_a_loss_that_diverges_over_several_steps_is_no_change_of_the_labels(growth: float) -> None:
    frame = quiet(steps=60)
    rows = frame["step"] > 40
    frame.loc[rows, "loss"] *= growth ** np.arange(1, 21)
    found = events(frame)
    assert found
    assert not [event for event in found if event.label == "labels"]


def test_labels_that_training_learns_anew_in_a_few_steps_are_a_change_all_the_same() -> None:
    frame = quiet()
    at(frame, 100, loss=1.0)
    frame.loc[frame["step"].between(100, 104), "loss"] = [22.0, 9.0, 4.0, 2.0, 1.3]
    assert [(event.step, event.label) for event in events(frame)] == [(100, "labels")]


def test_a_heavy_tail_of_the_loss_does_not_stay() -> None:
    frame = quiet()
    frame["loss"] = 0.1 * np.exp(0.6 * np.random.default_rng(1).normal(size=T))
    frame.loc[frame["step"].between(100, 109), "loss"] = [1.4, 0.5, 0.2, *[0.15] * 4, *[0.1] * 3]
    assert not [event for event in events(frame) if event.label == "labels"]


def test_an_infinite_loss_has_left_its_past() -> None:
    frame = quiet(steps=50)
    frame.loc[frame["step"] == 40, "loss"] = np.inf
    assert events(frame)[0].step == 40


@pytest.mark.parametrize(("value", "said"), [(np.nan, "was not a number"), (-400.0, "fell below 0")])
def test_a_loss_that_is_suddenly_strange_is_an_event(value: float, said: str) -> None:
    frame = quiet()
    frame.loc[frame["step"] >= 100, "loss"] = value
    (event, *_) = events(frame)
    assert (event.step, event.label, event.inner) == (100, "labels", False)
    assert said in event.text


def test_a_loss_that_always_changes_its_sign_is_none() -> None:
    frame = quiet()
    frame["loss"] -= 1.0
    assert events(frame) == []


@pytest.mark.parametrize("penalty", [True, False, None])
def test_a_gradient_at_the_outputs_that_stays_as_it_was_shows_a_penalty(penalty: bool | None) -> None:
    """Without a path past the outputs it is none: the gradient of an absolute error is constant, too."""
    frame = loss_alone(penalty=penalty)
    at(frame, 100, loss=6.0, grad_norm=8.0, update_norm=8.0)
    (event, *_) = events(frame)
    assert (event.step, event.label) == (100, "loss_penalty" if penalty else "labels")


def test_a_gradient_that_rises_with_the_loss_shows_its_scale() -> None:
    frame = loss_alone()
    at(frame, 100, loss=64.0, grad_norm=64.0, update_norm=64.0, output_grad_norm=64.0)
    (event, *_) = events(frame)
    assert (event.step, event.label, event.inner) == (100, "step_size", False)
    assert event.text.endswith("×: its scale rose")


def test_outputs_that_moved_are_a_reason_of_their_own() -> None:
    frame = loss_alone(penalty=True)
    at(frame, 100, loss=64.0, grad_norm=64.0, update_norm=64.0, output_rms=9.0)
    assert "the outputs are as before" not in events(frame)[0].text


def test_one_odd_batch_is_no_change_of_labels() -> None:
    frame = loss_alone()
    at(frame, 100, loss=9.0, grad_norm=3.0, output_grad_norm=3.0, once=1)
    assert events(frame)[0].inner


def test_a_loss_that_varies_about_zero_has_no_event() -> None:
    frame = quiet()
    frame["loss"] = 0.3 + 0.1 * np.sin(frame["step"])
    frame.loc[frame["step"] >= 60, "loss"] -= 0.3
    assert not [event for event in events(frame) if "below 0" in event.text]
    frame.loc[frame["step"] >= 60, "loss"] -= 30
    assert "below 0" in events(frame)[0].text


def test_outputs_that_change_without_inputs_or_parameters_show_another_forward() -> None:
    frame = loss_alone()
    at(frame, 100, loss=28.0, grad_norm=100.0, update_norm=100.0, output_rms=9.0, output_grad_norm=2.0)
    (event, *_) = events(frame)
    assert (event.step, event.label, event.inner) == (100, "unknown", False)
    assert "what the forward does, or the inputs otherwise, changed" in event.text


def test_a_loss_that_rises_step_by_step_diverges_over_whatever_outputs() -> None:
    frame = loss_alone()
    frame.loc[frame["step"] >= 100, "loss"] = 4.0 ** np.arange(1, T - 98)
    assert events(frame)[0].label == "step_size"


def test_targets_that_make_the_next_loss_nan_are_labels() -> None:
    frame = loss_alone()
    at(frame, 100, loss=1e7, grad_norm=1e4, update_norm=1e4, output_grad_norm=1e4)
    frame.loc[frame["step"] > 100, "loss"] = np.nan
    assert events(frame)[0].label == "labels"
