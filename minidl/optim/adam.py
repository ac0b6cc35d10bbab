"""Adam and AdamW: one update rule, two places for weight decay.

Each parameter counts its own steps for the bias correction: one whose first gradient comes late starts like
any other.
"""

from minidl import backend
from minidl.backend import Array
from minidl.optim.optimizer import Optimizer, Params, number


class Adam(Optimizer):
    """Gradient descent along the running mean of the gradient, divided by its running root mean square.

    slope = g + weight_decay * p
    mean = beta1 * mean + (1 - beta1) * slope                       (both start at 0)
    mean_square = beta2 * mean_square + (1 - beta2) * slope**2
    p -= lr * mean / (1 - beta1**t) / (sqrt(mean_square / (1 - beta2**t)) + eps)    (t-th step of this p)

    Kingma and Ba 2014, arXiv:1412.6980, Algorithm 1.  ValueError for a negative number, or a beta >= 1.
    """

    hyper = ("lr", "beta1", "beta2", "eps", "weight_decay")
    fractions = ("beta1", "beta2")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.beta1 = number(self.name, "betas[0]", betas[0], below=1.0)
        self.beta2 = number(self.name, "betas[1]", betas[1], below=1.0)
        self.eps = number(self.name, "eps", eps)

    def slots(self) -> dict[str, float]:
        return {"mean": 0.0, "mean_square": 0.0}

    def update(
        self, p: Array, g: Array, slots: dict[str, Array], step: int, *, lr: float, weight_decay: float
    ) -> None:
        backend.of(p).adam_update(
            p,
            g,
            **slots,
            lr=lr,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            weight_decay=weight_decay,
            step=step,
        )


class AdamW(Adam):
    """Adam with weight decay of its own: p *= 1 - lr * weight_decay, then Adam's step with slope = g.

    Loshchilov and Hutter 2017, arXiv:1711.05101, Algorithm 2, with lr as the factor of both, as in PyTorch.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(
        self, p: Array, g: Array, slots: dict[str, Array], step: int, *, lr: float, weight_decay: float
    ) -> None:
        backend.of(p).adamw_update(
            p,
            g,
            **slots,
            lr=lr,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            weight_decay=weight_decay,
            step=step,
        )
