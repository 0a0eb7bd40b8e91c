"""What an age network minimises: objectives on logits (N, K) over K classes with known years.

The prediction is the expectation of the soft-max distribution, E = Σ pₖ·yₖ (DEX: Rothe, Timofte, Van Gool 2015).

==================  ==================================================================================  ================
name                loss                                                                                source
==================  ==================================================================================  ================
``cross-entropy``   cross-entropy with the age's class, or with its two neighbours interpolated         DEX
``dldl``            KL divergence from a Gaussian around the age                                        Gao et al. 2017
``dldl-v2``         the same plus |E − age|                                                             Gao et al. 2018
``mean-variance``   cross-entropy + 0.2·½(E − age)² + 0.05·Σ pₖ(yₖ − E)²                                Pan et al. 2018
==================  ==================================================================================  ================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.nn.age import expectation
from edgedl.training.objective_names import AgeObjectiveName
from runtime.errors import InputError


def one_hot_nearest(ages: Tensor, years: Tensor) -> Tensor:
    """Targets (N, K) with all weight on the class whose year is nearest to each age (N,); a tie takes the younger."""
    nearest = (ages[:, None] - years).abs().argmin(dim=1)
    return F.one_hot(nearest, len(years)).to(years.dtype)


def two_hot(ages: Tensor, years: Tensor) -> Tensor:
    """Targets (N, K) whose expectation is the age: its weight lies on the two neighbouring classes, interpolated.

    ``years`` must increase. Ages outside them are held at the first or last class.
    """
    held = ages.to(years.dtype).clamp(years[0], years[-1])
    upper = torch.searchsorted(years, held).clamp(1, len(years) - 1)
    lower = upper - 1
    share = (held - years[lower]) / (years[upper] - years[lower])
    targets = torch.zeros(len(ages), len(years), dtype=years.dtype, device=years.device)
    targets.scatter_(1, lower[:, None], (1 - share)[:, None])
    return targets.scatter_(1, upper[:, None], share[:, None])


def gaussian_targets(ages: Tensor, years: Tensor, sigma: float) -> Tensor:
    """Label distributions (N, K): a Gaussian of standard deviation ``sigma`` years around each age, summing to 1."""
    return torch.softmax(-0.5 * ((years - ages[:, None].to(years.dtype)) / sigma) ** 2, dim=1)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats between target distributions (N, K) and the soft-max of logits (N, K)."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def kl_divergence(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean KL(targets ‖ soft-max) in nats; cross-entropy less the targets' own entropy, so 0 is reachable."""
    return F.kl_div(F.log_softmax(logits, dim=1), targets, reduction="batchmean")


def expectation_l1(logits: Tensor, ages: Tensor, years: Tensor) -> Tensor:
    """Mean |E − age| in years: the quantity that MAE measures."""
    return (expectation(logits.softmax(dim=1), years) - ages).abs().mean()


def mean_and_variance(logits: Tensor, ages: Tensor, years: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of Pan et al. 2018, equations 3 and 5: ½(E − age)² and Σ pₖ(yₖ − E)², each averaged over N."""
    probabilities = logits.softmax(dim=1)
    mean = expectation(probabilities, years)
    variance = (probabilities * (years - mean[:, None]) ** 2).sum(dim=1)
    return 0.5 * ((mean - ages) ** 2).mean(), variance.mean()


class AgeObjective(nn.Module):
    """One of the objectives above as a module: logits (N, K) and ages (N,) in years give the mean loss.

    Args:
        years: The K years of the classes, increasing.
        name: Which objective.
        targets: Cross-entropy and mean-variance only: ``nearest`` class or the two neighbours (``interpolated``).
        sigma: Standard deviation of the label distributions in years (``dldl`` and ``dldl-v2``).
        expectation_weight: Weight of |E − age|. None takes the paper's: 1 for ``dldl-v2``, 0 for the others.
        mean_weight: λ1 of mean-variance.
        variance_weight: λ2 of mean-variance.
    """

    years: Tensor

    def __init__(
        self,
        years: Sequence[float],
        name: AgeObjectiveName = "cross-entropy",
        *,
        targets: Literal["nearest", "interpolated"] = "interpolated",
        sigma: float = 2.0,
        expectation_weight: float | None = None,
        mean_weight: float = 0.2,
        variance_weight: float = 0.05,
    ) -> None:
        super().__init__()
        if name not in get_args(AgeObjectiveName):
            raise InputError(f"no objective is called {name!r}; there are {', '.join(get_args(AgeObjectiveName))}")
        if len(years) < 2 or any(b <= a for a, b in pairwise(years)):
            raise InputError("the years of the classes must be at least two and increase")
        if sigma <= 0:
            raise InputError(f"sigma must be above 0 years, not {sigma}")
        self.name = name
        self.targets = targets
        self.sigma = sigma
        self.expectation_weight = float(name == "dldl-v2") if expectation_weight is None else expectation_weight
        self.mean_weight = mean_weight
        self.variance_weight = variance_weight
        self.register_buffer("years", torch.tensor(years, dtype=torch.get_default_dtype()), persistent=False)

    def forward(self, logits: Tensor, ages: Tensor) -> Tensor:
        """Returns the mean loss, a scalar."""
        logits = logits.to(self.years.dtype)  # under bfloat16 the soft-max and the years need float32
        if self.name in ("dldl", "dldl-v2"):
            loss = kl_divergence(logits, gaussian_targets(ages, self.years, self.sigma))
        elif self.targets == "nearest":
            loss = cross_entropy(logits, one_hot_nearest(ages, self.years))
        else:
            loss = cross_entropy(logits, two_hot(ages, self.years))
        if self.name == "mean-variance":
            mean_term, variance_term = mean_and_variance(logits, ages, self.years)
            loss = loss + self.mean_weight * mean_term + self.variance_weight * variance_term
        if self.expectation_weight:
            loss = loss + self.expectation_weight * expectation_l1(logits, ages, self.years)
        return loss


def ask_for_logits(network: nn.Module, images: Tensor) -> Tensor:
    """The logits (N, K) of an ``AgeNetwork``, whose ``forward`` gives the final answers instead."""
    logits: Tensor = network.logits(images)  # type: ignore[operator]  # a method that nn.Module does not declare
    return logits


@dataclass(frozen=True, slots=True)
class AgeLearning:
    """How an age network learns from batches ``{"image": (N, 3, S, S), "age": (N,)}`` and how it is judged.

    ``logits`` says how the network is asked for its logits; it must be a function that pickles, so that several
    processes can train together.
    """

    objective: AgeObjective
    logits: Callable[[nn.Module, Tensor], Tensor] = ask_for_logits
    monitor: str = "MAE"
    mode: Literal["min", "max"] = "min"

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean loss of a batch."""
        loss: Tensor = self.objective(self.logits(network, batch["image"]), batch["age"])
        return loss

    def measure(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, int]]:
        """Sums over the batch and their counts: the loss, MAE in years, and the share of errors of at most 5 years."""
        logits = self.logits(network, batch["image"]).to(self.objective.years.dtype)
        count = len(logits)
        errors = (expectation(logits.softmax(dim=1), self.objective.years) - batch["age"]).abs()
        return {
            "loss": (self.objective(logits, batch["age"]) * count, count),
            "MAE": (errors.sum(), count),
            "CS@5": ((errors <= 5.0).sum(), count),
        }
