"""Every network of the zoo against its PyTorch twin.

Skipped without PyTorch (`pip install torch==2.13.0`). As a program, `python tests/peers/test_twins.py
[MODEL ...]` prints the figures, a line for each variant of the models, or of all.
"""

import sys
import time
from pathlib import Path

import pytest

import networks

pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout

import minidl_models
import twins

# one of each family at its own size, where kernels for large images are at work
NATIVE = [
    ("nin", "cifar10"),
    ("alexnet", "paper"),
    ("vgg11", "plain"),
    ("googlenet", "paper"),
    ("bn_inception", "paper"),
    ("inception_v2", "table1"),
    ("inception_v3", "tf"),
    ("inception_v4", "tf"),
    ("inception_resnet_v1", "paper"),
    ("inception_resnet_v2", "tf"),
    ("resnet50", "v1.5"),
    ("preact_resnet50", "v1.5"),
]


def test_every_network_of_the_zoo_has_a_twin() -> None:
    zoo = {(name, label) for name in minidl_models.names() for label in minidl_models.entry(name).variants}
    assert zoo - set(networks.twins()) == {("nin", "digits")}  # that of MNIST, under another name


@pytest.mark.parametrize(("name", "label"), networks.twins())
def test_a_network_computes_what_its_twin_computes(name: str, label: str) -> None:
    found = twins.compare(name, label)
    over = {
        kind: value for kind, value, bound in zip(found._fields, found, twins.BOUNDS) if not value <= bound
    }
    assert over == {}


@pytest.mark.parametrize(("name", "label"), NATIVE)
def test_logits_at_native_size(name: str, label: str) -> None:
    net, twin = twins.build_pair(name, label)
    assert twins.eval_deviation(net, twin, net.input_shape[0], "float32") <= twins.BOUNDS.eval32


def test_a_wrong_weight_is_seen() -> None:
    net, twin = twins.build_pair("resnet20", "paper")
    next(iter(twin.parameters())).data[0, 0, 0, 0] += 1
    assert twins.eval_deviation(net, twin, 32, "float32") > twins.BOUNDS.eval32


def test_layers_that_do_not_pair_up_are_seen() -> None:
    net, _ = twins.build_pair("resnet20", "paper")
    _, twin = twins.build_pair("resnet20", "shortcut=B")
    with pytest.raises(ValueError, match="the network has 39 layers with weights, its twin 43"):
        twins.copy_weights(net, twin)


def main(models: list[str]) -> int:
    """Print a line for each variant of the models; 1 if any is out of bounds."""
    titles = [*twins.Deviations._fields, "seconds"]
    print(f"{'network':42}" + "".join(f"{title:>12}" for title in titles))
    print(f"{'bound':42}" + "".join(f"{bound:12.0e}" for bound in twins.BOUNDS))
    failed = 0
    for name, label in networks.twins():
        if models and name not in models:
            continue
        start = time.perf_counter()
        found = twins.compare(name, label)
        good = all(value <= bound for value, bound in zip(found, twins.BOUNDS))
        failed += not good
        figures = "".join(f"{value:12.1e}" for value in found)
        seconds = time.perf_counter() - start
        print(
            f"{f'{name} {label}':42}{figures}{seconds:12.1f}{'' if good else '  OUT OF BOUNDS'}", flush=True
        )
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
