"""Events are dated by the first column that leaves its own past."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.attribution.baseline import RATIOS, mean_deviation, ratio_deviation
from harness.attribution.events import calm_before, events

T = 200


def quiet(seed: int = 0, steps: int = T) -> pd.DataFrame:
    """A calm training: noise of a few per cent on everything."""
    draw = np.random.default_rng(seed)

    def noisy(level: float) -> np.ndarray:
        return level * np.exp(0.08 * draw.normal(size=steps))

    return pd.DataFrame(
        {
            "step": np.arange(1, steps + 1),
            "input_mean": 0.1 + 0.01 * draw.normal(size=steps),
            "input_rms": 1 + 0.02 * draw.normal(size=steps),
            "written_norm": 0.0,
            "loss": noisy(1.0),
            "grad_norm": noisy(2.0),
            "update_norm": noisy(0.02),
            "weight_norm": 20.0,
            "lr": 0.1,
        }
    )


def at(frame: pd.DataFrame, step: int, **factors: float) -> None:
    """From the named step on (or in it alone, with once=1), columns are multiplied."""
    once = bool(factors.pop("once", 0))
    rows = frame["step"].eq(step) if once else frame["step"].ge(step)
    for name, factor in factors.items():
        frame.loc[rows, name] *= factor


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


def test_an_infinite_loss_has_left_its_past() -> None:
    frame = quiet(steps=50)
    frame.loc[frame["step"] == 40, "loss"] = np.inf
    assert events(frame)[0].step == 40


def test_calm_is_judged_by_the_twenty_steps_before() -> None:
    frame = quiet()
    assert calm_before(frame, 100)
    frame.loc[frame["step"].between(80, 99), "update_norm"] = 5.0
    assert not calm_before(frame, 100)
    assert calm_before(frame, 1)


def test_fewer_than_two_steps_have_no_events() -> None:
    assert events(quiet().head(1)) == []


# --- the past, step by step: an oracle in plain Python ------------------------------------------


def baseline_of(values: np.ndarray, t: int) -> np.ndarray:
    past = values[max(0, t - 50) : t]
    return past[np.isfinite(past)]


def left_slowly(values: np.ndarray, name: str) -> np.ndarray:
    found = np.zeros(len(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    for t, log in enumerate(logs):
        past = baseline_of(logs, t)
        if np.isnan(log) or np.isneginf(log) or len(past) < 8:
            continue
        above = log - np.median(past)
        noise = 6 * 1.4826 * np.median(np.abs(past - np.median(past)))
        least = np.log(RATIOS[name])
        usual = min(noise, past.max() - np.median(past) + least)
        if (abs(above) if name == "input_rms" else above) > max(least, usual):
            found[t] = np.exp(min(above, 700.0))
    return found


def shifted_slowly(mean: np.ndarray, rms: np.ndarray) -> np.ndarray:
    found = np.zeros(len(mean))
    for t, value in enumerate(mean):
        past, sizes = baseline_of(mean, t), baseline_of(rms, t)
        if not np.isfinite(value) or len(past) < 8 or not len(sizes):
            continue
        moved, scale = abs(value - np.median(past)), np.median(sizes)
        noise = 6 * 1.4826 * np.median(np.abs(past - np.median(past)))
        if scale > 0 and moved > max(noise, 0.25 * scale):
            found[t] = moved / scale
    return found


@pytest.mark.parametrize("seed", range(20))
def test_pasts_are_what_a_loop_over_the_steps_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.attribution.baseline.BLOCK", 37)  # baselines reach over blocks
    draw = np.random.default_rng(seed)
    spread = draw.choice([0.01, 0.3, 2.0], size=(3, 1))
    values = np.exp(draw.normal(size=(3, 160)) * spread)
    values[:, draw.integers(0, 160) :] *= draw.choice([0.1, 1.0, 4.0])
    holes = draw.random(values.shape)
    for low, odd in ((0.0, np.nan), (0.1, np.inf), (0.12, 0.0)):
        values[(holes >= low) & (holes < low + (0.1 if np.isnan(odd) else 0.02))] = odd
    for name in ("loss", "input_rms"):
        np.testing.assert_allclose(ratio_deviation(values[0], name), left_slowly(values[0], name), rtol=1e-9)
    mean = values[1] - 1
    np.testing.assert_allclose(mean_deviation(mean, values[2]), shifted_slowly(mean, values[2]), rtol=1e-9)


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


def test_what_lasts_after_a_symptom_is_no_new_event() -> None:
    frame = quiet()
    at(frame, 98, update_norm=2.0, once=1)
    at(frame, 99, loss=8.0, grad_norm=8.0)
    found = events(frame)
    assert [event.step for event in found] == [99]
    assert found[0].inner


def loss_alone(steps: int = T, *, penalty: bool | None = None) -> pd.DataFrame:
    """A calm training whose outputs were observed, too."""
    frame = quiet(steps=steps)
    draw = np.random.default_rng(9)
    frame["output_rms"] = 3 * np.exp(0.05 * draw.normal(size=steps))
    frame["output_grad_norm"] = 0.1 * np.exp(0.05 * draw.normal(size=steps))
    frame.attrs["loss"] = {} if penalty is None else {"penalty": penalty}
    return frame


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


def test_an_optimizer_that_was_replaced_is_an_event() -> None:
    frame = quiet()
    frame.loc[frame["step"] >= 100, ["lr", "grad_norm", "update_norm", "weight_norm"]] = np.nan
    at(frame, 101, loss=9.0)
    replaced, loss = events(frame)
    assert (replaced.step, replaced.label) == (100, "unknown")
    assert "another one trains, unseen" in replaced.text
    assert (loss.step, loss.inner) == (101, True)


def test_targets_that_make_the_next_loss_nan_are_labels() -> None:
    frame = loss_alone()
    at(frame, 100, loss=1e7, grad_norm=1e4, update_norm=1e4, output_grad_norm=1e4)
    frame.loc[frame["step"] > 100, "loss"] = np.nan
    assert events(frame)[0].label == "labels"
