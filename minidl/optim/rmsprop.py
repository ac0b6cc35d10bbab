"""RMSprop in TensorFlow's form, which trained the Inception papers; the class says where PyTorch differs."""

from minidl import backend
from minidl.backend import Array
from minidl.optim.optimizer import Optimizer, Params, number


class RMSprop(Optimizer):
    """Gradient descent with every element's gradient divided by its running root mean square.

    slope = g + weight_decay * p
    mean_square = decay * mean_square + (1 - decay) * slope**2      (mean_square starts at 1)
    velocity = momentum * velocity + lr * slope / sqrt(mean_square + eps)
    p -= velocity

    PyTorch adds eps outside the root, starts mean_square at 0 and multiplies the velocity by lr. A start of 1
    makes the first steps small, not huge. The Inception recipe is decay=0.9, momentum=0.9,
    eps=1.0. Without momentum no velocity is kept. Tieleman and Hinton 2012, "Neural Networks for Machine
    Learning", lecture 6.5.  ValueError for a negative number, or a decay of 1 or more.
    """

    hyper = ("lr", "decay", "momentum", "eps", "weight_decay")
    fractions = ("decay",)

    def __init__(
        self,
        params: Params,
        lr: float,
        decay: float = 0.9,
        momentum: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.decay = number("RMSprop", "decay", decay, below=1.0)
        self.momentum = number("RMSprop", "momentum", momentum)
        self.eps = number("RMSprop", "eps", eps)

    def slots(self) -> dict[str, float]:
        return {"mean_square": 1.0} | ({"velocity": 0.0} if self.momentum else {})

    def update(
        self, p: Array, g: Array, slots: dict[str, Array], step: int, *, lr: float, weight_decay: float
    ) -> None:
        backend.of(p).rmsprop_update(
            p,
            g,
            slots["mean_square"],
            slots.get("velocity"),
            lr=lr,
            decay=self.decay,
            momentum=self.momentum,
            eps=self.eps,
            weight_decay=weight_decay,
        )
