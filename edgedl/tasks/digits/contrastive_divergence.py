"""Contrastive divergence (Hinton 2002), its persistent form (Tieleman 2008), and how Boltzmann machines learn by them.

The gradient of the log-likelihood is the mean of ∂(-F)/∂θ over the data less that over the machine's own distribution.
The second mean is out of reach; k steps of Gibbs sampling stand in for it. CD-k starts them at the data, PCD where its
chains stopped at the update before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from edgedl.tasks.digits.config import PretrainOptions
from edgedl.tasks.digits.rbm import RBM
from exporters.denormals import flush_denormals
from runtime.errors import CheckFailedError


@dataclass(frozen=True, slots=True)
class Gradient:
    """An estimate of the log-likelihood's gradient, per sample; uphill is better."""

    weight: Tensor
    visible_bias: Tensor
    hidden_bias: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """In the order of `parameters_of`."""
        return self.weight, self.visible_bias, self.hidden_bias


EARLY_EPOCHS, EARLY_MOMENTUM = 5, 0.5


def parameters_of(rbm: RBM) -> tuple[Tensor, Tensor, Tensor]:
    """The weights and both biases."""
    return rbm.weight, rbm.visible_bias, rbm.hidden_bias


def contrastive_divergence(
    rbm: RBM,
    visible: Tensor,
    steps: int,
    generator: Generator,
    chains: Tensor | None = None,
    *,
    sampled: bool = True,
) -> tuple[Gradient, Tensor]:
    """The CD-k gradient of a batch, or PCD's.

    Hidden units enter both means by their probabilities: the same expectation as of their samples, and less noise.

    Args:
        rbm: the machine.
        visible: (N, V) data.
        steps: k.
        generator: source of all randomness.
        chains: (M, V) where PCD's chains stand; None starts at the data.
        sampled: the chains' visible units are drawn; else they are their probabilities.

    Returns:
        The gradient, and where the chains stand after k steps, (M, V) or (N, V).
    """
    hidden = rbm.hidden_probabilities(visible)
    state = visible if chains is None else chains
    for _ in range(steps):
        drawn = rbm.sample_hidden(state, generator)
        state = rbm.sample_visible(drawn, generator) if sampled else rbm.visible_probabilities(drawn)
    own = rbm.hidden_probabilities(state)
    return Gradient(
        visible.T @ hidden / len(visible) - state.T @ own / len(state),
        visible.mean(dim=0) - state.mean(dim=0),
        hidden.mean(dim=0) - own.mean(dim=0),
    ), state


@flush_denormals()
@torch.no_grad()
def pretrain(
    rbm: RBM,
    data: Tensor,
    held_out: Tensor,
    options: PretrainOptions,
    generator: Generator,
    label: str = "",
) -> list[dict[str, float]]:
    """Trains a machine.

    Args:
        rbm: changed in place.
        data: (N, V), shares between 0 and 1.
        held_out: (M, V), of the same kind, never learnt from.
        options: how.
        generator: of order and sampling.
        label: names the machine in an error.

    Returns:
        A row per epoch, from 1: ``reconstruction`` (mean squared error of one up- and down-pass over the held-out
        data), ``free_energy`` of the data and ``held_out_free_energy``, means in nats.

    Raises:
        CheckFailedError: the weights are no numbers any more.
    """
    velocity = [torch.zeros_like(tensor) for tensor in parameters_of(rbm)]
    chains: Tensor | None = None
    history = []
    for epoch in range(options.epochs):
        momentum = min(options.momentum, EARLY_MOMENTUM) if epoch < EARLY_EPOCHS else options.momentum
        rate = options.lr * min(1.0, 2 * (options.epochs - epoch) / (options.epochs + 1))
        order = torch.randperm(len(data), generator=generator)
        for start in range(0, len(data), options.batch_size):
            batch = data[order[start : start + options.batch_size]]
            gradient, state = contrastive_divergence(
                rbm, batch, options.steps, generator, chains, sampled=options.sampled
            )
            if options.persistent:
                chains = state
            gradient.weight.sub_(rbm.weight, alpha=options.weight_decay)
            for tensor, speed, uphill in zip(parameters_of(rbm), velocity, gradient.parts, strict=True):
                speed.mul_(momentum).add_(uphill, alpha=rate)
                tensor.add_(speed)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in parameters_of(rbm)):
            raise CheckFailedError(
                f"the weights of the Boltzmann machine {label} became infinite in epoch {epoch + 1}; lower its "
                f"learning rate ({options.lr})"
            )
        again = rbm.visible_probabilities(rbm.hidden_probabilities(held_out))
        history.append(
            {
                "epoch": float(epoch + 1),
                "reconstruction": float((again - held_out).square().mean()),
                "free_energy": float(rbm.free_energy(data).mean()),
                "held_out_free_energy": float(rbm.free_energy(held_out).mean()),
            }
        )
    return history
