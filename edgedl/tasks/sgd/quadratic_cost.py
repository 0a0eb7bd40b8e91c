"""The cost of a linear network in closed form: what a path is drawn on, and where it ought to end.

With squared errors, half their mean being the data term, the cost over T samples is a bowl,

    J(w) = 1/(2T)·Σ (xₜ·w − yₜ)² + λ/(2T)·Σ wⱼ² + μ·Σ |wⱼ|,

and dropout of a share q adds q/(1 − q)·½·Σ Hⱼⱼ wⱼ² on average (Srivastava et al. 2014, section 9.1), H = XᵀX/T.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgedl.training.penalties import weight_decay_from_lambda
from runtime.errors import InputError

ACCURACY, MOST_SWEEPS = 1e-14, 100_000


@dataclass(frozen=True, slots=True, eq=False)
class QuadraticCost:
    """J(w) = ½·wᵀHw − b·w + c + l1·Σ|w|.

    Attributes:
        hessian: (n, n) H, the curvature.
        linear: (n,) b.
        constant: c, half the mean square of the targets.
        samples: T.
        l1: factor of Σ|w|.
    """

    hessian: NDArray[np.float64]
    linear: NDArray[np.float64]
    constant: float
    samples: int
    l1: float = 0.0

    @classmethod
    def of_data(cls, inputs: ArrayLike, targets: ArrayLike) -> Self:
        """The data term of inputs (T, n) and targets (T,)."""
        x, y = np.asarray(inputs, np.float64), np.asarray(targets, np.float64)
        if x.ndim != 2 or y.shape != x.shape[:1] or not len(x):
            raise InputError(f"expected inputs (T, n) and targets (T,), found {list(x.shape)} and {list(y.shape)}")
        count = len(y)
        return cls(x.T @ x / count, x.T @ y / count, float(y @ y) / (2 * count), count)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            InputError: something is missing or of the wrong shape.
        """
        try:
            cost = cls(
                np.array(data["hessian"], np.float64),
                np.array(data["linear"], np.float64),
                float(data["constant"]),
                int(data["samples"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the run's configuration holds no cost to draw: {error!r}") from error
        if cost.linear.ndim != 1 or cost.hessian.shape != (cost.linear.size, cost.linear.size):
            raise InputError(f"the run's cost has the shapes {cost.hessian.shape} and {cost.linear.shape}")
        return cost

    def to_json(self) -> dict[str, Any]:
        """The data term."""
        return {
            "hessian": self.hessian.tolist(),
            "linear": self.linear.tolist(),
            "constant": self.constant,
            "samples": self.samples,
        }

    def penalised(self, *, l2: float = 0.0, l1: float = 0.0, dropout: float = 0.0) -> Self:
        """The cost with λ = `l2`, μ = `l1` and a share of dropped inputs."""
        added = weight_decay_from_lambda(l2, self.samples) * np.eye(len(self.linear))
        added += dropout / (1 - dropout) * np.diag(np.diag(self.hessian))
        return replace(self, hessian=self.hessian + added, l1=self.l1 + l1)

    def __call__(self, weights: ArrayLike) -> NDArray[np.float64]:
        """J at weights (…, n)."""
        w = np.asarray(weights, np.float64)
        bowl = 0.5 * np.einsum("...i,ij,...j->...", w, self.hessian, w) - w @ self.linear + self.constant
        cost: NDArray[np.float64] = bowl + self.l1 * np.abs(w).sum(axis=-1)
        return cost

    def minimum(self) -> NDArray[np.float64]:
        """Where J is least, (n,): solved, or by coordinate descent where there is an L1 term.

        Raises:
            InputError: the bowl is flat along some direction.
        """
        if self.curvatures()[0] <= 0:
            raise InputError("the cost is flat along some direction: two inputs say the same, or one is always 0")
        w = np.asarray(np.linalg.solve(self.hessian, self.linear), np.float64)
        if not self.l1:
            return w
        for _ in range(MOST_SWEEPS):
            before = w.copy()
            for j in range(len(w)):
                rest = self.linear[j] - self.hessian[j] @ w + self.hessian[j, j] * w[j]
                w[j] = np.sign(rest) * max(abs(rest) - self.l1, 0.0) / self.hessian[j, j]
            if np.abs(w - before).max() <= ACCURACY:
                break
        return w

    def curvatures(self) -> NDArray[np.float64]:
        """The eigenvalues of H, (n,), ascending. Plain descent is stable for learning rates below 2 / the largest."""
        return np.asarray(np.linalg.eigvalsh(self.hessian), np.float64)
