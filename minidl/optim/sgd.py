"""Stochastic gradient descent, with momentum in PyTorch's form: the learning rate is not in the velocity."""

from minidl import backend
from minidl.backend import Array
from minidl.optim.optimizer import Optimizer, Params, number


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    slope = g + weight_decay * p
    velocity = momentum * velocity + slope                          (velocity starts at 0)
    p -= lr * velocity,  or with nesterov  p -= lr * (slope + momentum * velocity)

    Without momentum no velocity is kept. Sutskever et al. 2013, "On the importance of initialization and
    momentum in deep learning", in PyTorch's form.  ValueError for a negative number, or for nesterov without
    momentum.
    """

    hyper = ("lr", "momentum", "weight_decay", "nesterov")

    def __init__(
        self,
        params: Params,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.momentum = number("SGD", "momentum", momentum)
        self.nesterov = bool(nesterov)
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov=True needs a momentum above 0")

    def slots(self) -> dict[str, float]:
        return {"velocity": 0.0} if self.momentum else {}

    def update(
        self, p: Array, g: Array, slots: dict[str, Array], step: int, *, lr: float, weight_decay: float
    ) -> None:
        backend.of(p).sgd_update(
            p,
            g,
            slots.get("velocity"),
            lr=lr,
            momentum=self.momentum,
            weight_decay=weight_decay,
            nesterov=self.nesterov,
        )
