"""Random small networks: gradients through all layers at once, dtypes, single images, saved states."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minidl import nn
from minidl.autograd import Tensor, no_grad
from minidl.backend.plans import force_plan
from minidl.testing import GradcheckSettings, gradcheck, strategies
from minidl.testing.strategies import StackCase

# A layer may sum a single image's products in another order than a batch's. Each of a few layers adds some
# dozens of roundings of 1e-16; batch norm's running variance, no smaller than 0.9, does not enlarge them.
REORDERED = 1e-12


# In a small stack a layer may be cut off: a ReLU may pass nothing of one branch, say, or everything, and the
# next batch norm takes the shift out again. The image's influence is not excused.
SOME_ARE_CUT_OFF = GradcheckSettings(allow_zero=True)


@given(strategies.layer_stacks(), strategies.plans())
def test_gradients_of_the_image_and_of_every_parameter(case: StackCase, plan: str) -> None:
    with force_plan(plan):
        network = case.build()
        assert gradcheck(network, case.x, settings=SOME_ARE_CUT_OFF)
        assert gradcheck(lambda x: network(x), case.x)


@given(strategies.layer_stacks())
def test_gradients_in_evaluation(case: StackCase) -> None:
    """With this batch's own mean and variance, so that a ReLU passes some of what batch norm gives it."""
    network = settled(case, momentum=1.0)
    assert gradcheck(network, case.x, settings=SOME_ARE_CUT_OFF)
    assert gradcheck(lambda x: network(x), case.x)


@given(strategies.layer_stacks(), st.sampled_from((np.float32, np.float64)))
def test_the_dtype_stays(case: StackCase, dtype: type) -> None:
    case = case.astype(dtype)
    network, x = case.build(), Tensor(case.x, requires_grad=True)
    y = network(x)
    y.backward(np.ones(y.shape, dtype))
    for tensor in (x, *network.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.dtype == dtype
        assert np.isfinite(tensor.grad.data).all()
    assert y.dtype == dtype
    assert {buffer.dtype for buffer in network.buffers()} <= {np.dtype(dtype)}


@given(strategies.layer_stacks())
def test_an_image_alone_gives_what_it_gives_in_company(case: StackCase) -> None:
    network = settled(case)
    with no_grad():
        together = network(case.x).data
        for n in range(len(case.x)):
            alone = network(case.x[n : n + 1]).data
            scale = np.abs(together).max()
            np.testing.assert_allclose(alone, together[n : n + 1], rtol=0, atol=REORDERED * scale)


@given(strategies.layer_stacks(dtype=np.float32))
def test_a_saved_state_gives_the_same_bits(case: StackCase) -> None:
    network = settled(case)
    other = StackCase(x=case.x, layers=case.layers, seed=case.seed ^ 1).build().eval()
    other.load_state_dict(network.state_dict())
    with no_grad():
        np.testing.assert_array_equal(other(case.x).data, network(case.x).data)
    for (name, mine), (other_name, theirs) in zip(
        network.state_dict().items(), other.state_dict().items(), strict=True
    ):
        assert name == other_name
        assert mine.tobytes() == theirs.tobytes()


def settled(case: StackCase, momentum: float = 0.1) -> nn.Module:
    """The network in evaluation, after a pass that moved its running statistics by `momentum`."""
    network = case.build().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.training, module.momentum = True, momentum
    with no_grad():
        network(case.x)
    return network.eval()
