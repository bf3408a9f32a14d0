"""Birth causes: which part of its mean pre-activation closed a unit before the first step."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.attribution.baseline import known_median
from harness.attribution.findings import BIRTH

NEGATIVE = -5  # standard errors below which the mean of a layer's weights is not chance
NEGATIVE_ROW = -4.5  # the same for a single unit's weights
LOW_BIAS = -1.5  # bias over PyTorch's own bound, below which no usual initialisation draws it
CONSTANT = 0.99  # share of the inputs' power that their mean makes, from which they hardly vary
SMALL = 0.02  # rms of inputs that are small beside the biases of a layer
FAR = 10  # deviations of its pre-activation that a usual bias takes a unit to if its inputs are too small
LARGE = 1.5  # deviation of the weights over He's above which they are large
TINY_GAIN = 0.1  # the same, below which they are too small for a signal to pass several layers
SEVERAL = 0.25  # share of the layers that are no few
FEW = 0.05  # share of all units below which a layer is small
LARGE_INPUTS = 5.0  # rms above which inputs are large
ROUNDING = 1e-4  # deviation over the inputs' size that a norm of one value leaves at most


def birth_causes(born: pd.DataFrame, layers: pd.DataFrame) -> list[str]:
    """Why each unit was born dead: the part of its mean pre-activation that closed it.

    If all parts are 0, or what came in is the same for all inputs, the units below are dead, and the cause is
    "upstream"; if something did come in, it met weights that are 0. If the parts are unknown, or the weights
    to blame are, the cause is "unknown".
    """
    parts = _closing_parts(born)
    bias, weight_mean, norm_mean, constant, rest = parts.T
    total = parts.sum(axis=1)
    layer = layers.set_index("site").reindex(born["site"])
    z = layer["weight_z"].to_numpy(float)
    negative = ((z < NEGATIVE) | _is_negative(born)) & (weight_mean > rest / 2)
    offset = born["site"].isin(reading(layers)["site"]).to_numpy() & is_off_centre(layer)
    empty = is_empty(born, layers) & ~_has_low_bias(born)
    nothing = ~(total > 0) & ((born["spread"] == 0) | (born[list(BIRTH)].abs().sum(axis=1) == 0)).to_numpy()
    known = layers[layers["layer"].notna()] if "layer" in layers else layers
    above = (layer["depth"] > known["depth"].min()).to_numpy()
    nothing |= (layer["input_rms"] == 0).to_numpy() & (above | ~reads_inputs(layer))
    nothing |= ((born["spread"] == 0).to_numpy() & (layer["off_centre"] > CONSTANT).to_numpy()) & above
    flat = is_flat(born, layers)
    conditions = [empty, flat & (normed(layer) != ""), flat, np.isnan(total), nothing, bias > total / 2]
    conditions += [norm_mean > total / 2, constant > total / 2, negative, offset]
    causes = ["weight_init", "norm_stats", "constant", "unknown", "upstream", "bias_init", "norm_stats"]
    causes += ["constant", "weight_init", "input_offset"]
    others = np.where(
        np.isnan(z) | ~(total > 0), "unknown", "weight_init"
    )  # a gate that z alone does not determine
    return [str(cause) for cause in np.select(conditions, causes, others)]


def is_by_chance(born: pd.DataFrame, layers: pd.DataFrame) -> pd.Series:
    """Which units were born dead although their weights and bias are not unusual.

    Every layer of a healthy network has units that are closed on all inputs by chance, more so in deeper
    layers, whose inputs are more alike. Deaths caused by dead units below are by chance if most of those are.
    """
    causes = pd.Series(birth_causes(born, layers), index=born.index)
    layer = layers.set_index("site").reindex(born["site"])
    usual = (layer["weight_z"].astype(float).fillna(0) > NEGATIVE) & (
        layer["gain"].astype(float).fillna(1) < LARGE
    )
    odd = ~usual.to_numpy() | is_empty(born, layers) | _is_negative(born) | _has_low_bias(born)
    known_bias = born["bias_size"].notna()
    drawn = causes.eq("weight_init") | (causes.eq("bias_init") & known_bias)
    chance = drawn & ~odd
    below = causes.eq("upstream")
    return chance | (below & bool(chance[~below].mean() > 0.5 if (~below).any() else True))


def hardly_vary(born: pd.DataFrame, layers: pd.DataFrame) -> bool:
    """Whether the model's inputs are all 0, nearly constant, off centre, or far smaller than the biases.

    They are not asked if the lowest layer's own weights or biases are unusual and closed its units.
    """
    first = reading(layers)
    lowest = born["site"].isin(layers.loc[layers["depth"] == layers["depth"].min(), "site"])
    known = born[lowest & born["spread"].notna()]
    if len(known) and is_by_chance(known, layers).mean() < 0.5:
        return False
    means = born.loc[lowest, "birth_weight_mean"].astype(float)
    biases = known_median(born.loc[lowest, "birth_bias"].astype(float))
    by_bias = len(means) > 0 and biases < min(0.0, known_median(means))  # beside which weights are small
    if (is_off_centre(first).any() and not by_bias) or (len(means) and known_median(means) < -FAR):
        return True
    first = first[(normed(first) == "") & first["site"].isin(born["site"]).to_numpy()]
    if ((first["input_rms"] == 0) | (first["off_centre"] > CONSTANT)).any():
        return True
    small = born[born["site"].isin(first.loc[first["input_rms"] < SMALL, "site"])]
    return bool((-small["birth_bias"].astype(float)).groupby(small["site"]).median().gt(FAR).any())


def reading(layers: pd.DataFrame) -> pd.DataFrame:
    """The layers that read the model's inputs: the lowest, and those of further inputs."""
    lowest = (layers["depth"] == layers["depth"].min()).to_numpy() & reads_inputs(layers)
    if "source" not in layers:
        return layers[lowest]
    return layers[lowest | layers["source"].isin(("inputs", "inputs, joined")).to_numpy()]


def are_tiny_or_alike(layers: pd.DataFrame) -> bool:
    """Whether most layers' weights are all tiny or all alike, and no norm stands before or behind them."""
    plain = normed(layers) == ""
    if "source" in layers:
        plain &= ~layers["source"].eq("norm").to_numpy()
    gain = layers.loc[plain, "gain"].dropna()
    return len(gain) > 1 and bool((gain < TINY_GAIN).sum() > len(layers) / 2)


def largest_gain(layers: pd.DataFrame) -> float:
    """The largest deviation of a layer's weights over He's.

    A norm behind a layer makes it unimportant. So are a few layers of few units, the squeezes of gates, say.
    """
    plain = normed(layers) == ""
    several = (plain & (layers["gain"] > LARGE)).mean() >= SEVERAL
    wide = layers["units"] >= FEW * layers["units"].sum() if "units" in layers else True
    return float(layers.loc[plain & (wide | several), "gain"].max())


def has_odd_inputs(layers: pd.DataFrame) -> np.ndarray:
    """Which layers get inputs that are large, and not normed behind the layer, or off centre."""
    large = (layers["input_rms"] > LARGE_INPUTS).to_numpy() & (normed(layers) == "")
    return large | is_off_centre(layers)


def odd_input(layers: pd.DataFrame) -> pd.Series | None:
    """The layer that reads the oddest inputs: all 0, the largest, or most off centre; None if none does."""
    read = reading(layers)
    read = read[read["input_rms"].notna()]
    if read.empty:
        return None
    rms, odd = read["input_rms"].to_numpy(float), has_odd_inputs(read)
    if (rms == 0).any():
        return read.iloc[int(rms.argmin())]
    large = odd & (rms > LARGE_INPUTS)
    off_centre = read["off_centre"].fillna(0.0).to_numpy(float)
    if large.any():
        return read.iloc[int(np.where(large, rms, 0.0).argmax())]
    return read.iloc[int(np.where(odd if odd.any() else True, off_centre, 0.0).argmax())]


def is_empty(born: pd.DataFrame, layers: pd.DataFrame) -> np.ndarray:
    """Whether all incoming weights of a unit are 0: it does not vary, though its inputs do."""
    size = born["row_size"].astype(float).to_numpy()
    return (size == 0) | (_is_constant(born, layers) & ~(size > 0))


def is_flat(born: pd.DataFrame, layers: pd.DataFrame) -> np.ndarray:
    """Whether a unit does not vary, though its weights are not 0: what stands behind leaves nothing of it."""
    layer = layers.set_index("site").reindex(born["site"])
    size = born["row_size"].astype(float).to_numpy()
    spread, inputs = born["spread"].to_numpy(float), layer["input_rms"].to_numpy(float)
    rounded = (normed(layer) != "") & (spread <= ROUNDING * inputs) & (inputs > 0) & ~(size == 0)
    return rounded | (_is_constant(born, layers) & (size > 0))


def are_mostly_flat(dead: pd.DataFrame, layers: pd.DataFrame) -> bool:
    """Whether most of some dead units do not vary because of what stands behind their layers."""
    return bool(2 * is_flat(dead, layers).sum() > len(dead))


def _is_constant(born: pd.DataFrame, layers: pd.DataFrame) -> np.ndarray:
    """Whether a unit's pre-activation is its bias alone on all inputs, though these are not 0."""
    layer = layers.set_index("site").reindex(born["site"])
    flat = (born["spread"] == 0).to_numpy() & (layer["input_rms"] > 0).to_numpy()
    return flat & (born["birth_weight_mean"].abs() + born["birth_rest"].abs() < 1e-6).to_numpy()


def _is_negative(born: pd.DataFrame) -> np.ndarray:
    """Whether a unit's own incoming weights are more negative than expected by chance."""
    return (born["row_z"].astype(float) < NEGATIVE_ROW).to_numpy()


def _has_low_bias(born: pd.DataFrame) -> np.ndarray:
    """Whether a unit's bias is lower than usual initialisations draw it, and closed the unit.

    Or higher, if its activation is bounded above.
    """
    parts = _closing_parts(born)
    closed = parts[:, 0] > parts.sum(axis=1) / 2
    size = born["bias_size"].astype(float).to_numpy()
    return closed & (np.where(_is_above(born), -size, size) < LOW_BIAS)


def are_mostly_above(units: pd.DataFrame) -> bool:
    """Whether most units that were born dead lie above the range of their activation, which is bounded."""
    born = units[units["dead"] & units["born"]]
    return len(born) > 0 and bool(_is_above(born).mean() > 0.5)


def _is_above(born: pd.DataFrame) -> np.ndarray:
    """Which units are closed though their pre-activation is above 0 on average: they are bounded above."""
    return born[list(BIRTH)].to_numpy(float).sum(axis=1) > 0


def _closing_parts(born: pd.DataFrame) -> np.ndarray:
    """The parts of the mean pre-activations that point to where the units are closed, as sizes."""
    parts = born[list(BIRTH)].to_numpy(float)
    return np.where(_is_above(born)[:, None], parts, -parts).clip(min=0)


def reads_inputs(layer: pd.DataFrame) -> np.ndarray:
    """Whether a layer receives the model's inputs, or layers' outputs if these are off; not a norm's."""
    if "source" not in layer:  # tables of earlier versions
        return np.ones(len(layer), bool)
    source = layer["source"].astype(object).where(layer["source"].notna(), "inputs")
    return source.astype(str).str.startswith("inputs").to_numpy(bool)


def is_off_centre(layers: pd.DataFrame) -> np.ndarray:
    """Whether the inputs' mean outweighs their spread and exceeds what an initialisation expects."""
    off = (layers["off_centre"].to_numpy(float) > 0.5) & (layers["input_mean"].to_numpy(float) > 0.7)
    return off & (normed(layers) != "offset and scale")


def normed(layers: pd.DataFrame) -> np.ndarray:
    """What the norm behind each layer removes from its inputs."""
    if "normed" not in layers:  # tables of earlier versions
        return np.full(len(layers), "", dtype=object)
    return layers["normed"].astype(object).where(layers["normed"].notna(), "").to_numpy(object)
