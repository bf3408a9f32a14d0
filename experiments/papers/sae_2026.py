"""Dead latents of sparse autoencoders by the activations' offset γ = ‖μ‖ / ‖σ‖, on synthetic activations."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from experiments.contrasts import contrast, level
from experiments.paper import Row, share, word_of
from experiments.verdicts import judge

GAMMAS, INPUTS, FEATURES, LATENTS, SEEDS = (0, 1, 3, 15), 20_000, 64, 512, 8
STEPS, BATCH, LR, SPARSITY = 2000, 256, 1e-3, 0.02
DIRECTIONS, ACTIVE = 128, 0.05  # of the sparse code that the activations are made of


def closed_form(gamma: float, n: int) -> float:
    """P(a latent with random weights and no bias is closed on n inputs): ∫ φ(z) Φ(-γz)^n dz."""
    points = [-1.0, -0.5, -0.2, -0.1, 0.0]
    value, _ = quad(lambda z: norm.pdf(z) * norm.cdf(-gamma * z) ** n, -12, 12, points=points, limit=500)
    return float(value)


def measure(root: Path) -> pd.DataFrame:
    """Dead share before and after training, by γ, and with centred inputs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found: list[tuple[int, float, str, float, float]] = []
        for seed in range(SEEDS):
            for gamma in GAMMAS:
                gaussian = offset(torch.randn(INPUTS, FEATURES, generator=draw(seed, 0)), gamma, seed)
                encoder = torch.randn(FEATURES, LATENTS, generator=draw(seed, 1))
                found.append((seed, gamma, "random", dead(gaussian @ encoder), closed_form(gamma, INPUTS)))
                x = offset(sparse(seed), gamma, seed)
                found.append((seed, gamma, "trained", trained(x, seed), np.nan))
            x = offset(sparse(seed), GAMMAS[-1], seed)
            found.append((seed, GAMMAS[-1], "centred", trained(x - x.mean(0), seed), np.nan))
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame(found, columns=pd.Index(["seed", "gamma", "latents", "dead_share", "law"]))


def draw(seed: int, what: int) -> torch.Generator:
    return torch.Generator().manual_seed(10 * seed + what)


def sparse(seed: int) -> Tensor:
    """(INPUTS, FEATURES): few of many directions at a time, as activations are thought to be."""
    generator = draw(seed, 2)
    codes = torch.rand(INPUTS, DIRECTIONS, generator=generator)
    codes = codes * (torch.rand(INPUTS, DIRECTIONS, generator=generator) < ACTIVE)
    return codes @ torch.nn.functional.normalize(torch.randn(DIRECTIONS, FEATURES, generator=generator))


def offset(x: Tensor, gamma: float, seed: int) -> Tensor:
    """Inputs with ‖σ‖ = √features, and a mean of γ times that in a random direction."""
    x = (x - x.mean(0)) * (FEATURES**0.5 / x.std(0).norm())
    direction = torch.randn(FEATURES, generator=draw(seed, 3))
    return x + gamma * FEATURES**0.5 * direction / direction.norm()


def trained(x: Tensor, seed: int) -> float:
    """Dead share after training a ReLU autoencoder with an L1 penalty on its latents."""
    generator = draw(seed, 4)
    decoder = torch.nn.functional.normalize(torch.randn(LATENTS, FEATURES, generator=generator))
    encoder, biases = decoder.T.clone(), torch.zeros(LATENTS)
    parameters = [tensor.requires_grad_() for tensor in (encoder, biases, decoder, torch.zeros(FEATURES))]
    optimizer = torch.optim.Adam(parameters, lr=LR)
    for _ in range(STEPS):
        batch = x[torch.randint(len(x), (BATCH,), generator=generator)]
        latents = (batch @ encoder + biases).relu()
        error = (latents @ decoder + parameters[3] - batch).square().sum(1)
        optimizer.zero_grad()
        (error + SPARSITY * latents.sum(1)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        return dead(x @ encoder + biases)


def dead(z: Tensor) -> float:
    """Share of latents closed on all inputs."""
    return float((z <= 0).all(0).float().mean())


def decide(table: pd.DataFrame) -> str:
    """The law within 3 points at every γ; training and centring in the paper's direction."""
    table = table.assign(off=table["dead_share"] - table["law"])
    arms = {
        name: {"latents": name, "gamma": g} for name, g in (("trained", GAMMAS[-1]), ("centred", GAMMAS[-1]))
    }
    return word_of(
        judge(
            *(
                level(table, "off", {"latents": "random", "gamma": g}, 0, label=f"law, γ {g}", within=0.03)
                for g in GAMMAS
            ),
            contrast(
                table,
                "dead_share",
                arms["trained"],
                {"latents": "trained", "gamma": GAMMAS[0]},
                label="offset",
                at_least=0.1,
            ),
            contrast(table, "dead_share", arms["centred"], arms["trained"], label="centred", at_most=-0.1),
        )
    )


def tell(table: pd.DataFrame) -> str:
    random = "; ".join(
        f"{g}: {share(table, 'dead_share', latents='random', gamma=g)}, law "
        f"{100 * closed_form(g, INPUTS):.1f} %"
        for g in GAMMAS
    )
    after = "; ".join(f"{g}: {share(table, 'dead_share', latents='trained', gamma=g)}" for g in GAMMAS)
    centred = share(table, "dead_share", latents="centred")
    return f"random latents by γ: {random}. Trained: {after}; γ {GAMMAS[-1]} centred: {centred}"


ROWS = (
    Row(
        name="sae_2026",
        source="Simon, Adams & Zou 2026, 2605.31518",
        read="abstract",
        theirs="dead latents follow γ = ‖μ‖ / ‖σ‖: near 0 for GPT-2, over 70 % for AlphaFold3, none "
        "when centred",
        setting=f"{FEATURES} features, {LATENTS} latents, {INPUTS:,} inputs. Random latents on N(μ, "
        "I) against "
        f"∫ φ(z) Φ(-γz)^n dz, which is derived here. Trained: ReLU, untied, L1 {SPARSITY}, Adam {LR:g}, "
        f"{STEPS:,} steps of {BATCH} on sparse combinations of {DIRECTIONS} directions plus μ.",
        scaled="synthetic activations in place of a language model's or AlphaFold3's, and a small "
        "autoencoder.",
        measure=measure,
        tell=tell,
        decide=decide,
    ),
)
