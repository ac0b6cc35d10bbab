"""The Inception networks' names in other libraries, against lists taken from those libraries."""

import json
import re
from pathlib import Path

import pytest

import minidl_models
from minidl import nn

LISTS = Path(__file__).resolve().parents[1] / "peers" / "name_maps.json"

# list: model, arguments, layout
LISTED = {
    "googlenet": ("googlenet", {"variant": "torchvision"}, "torchvision"),
    "inception_v3": ("inception_v3", {"variant": "torchvision"}, "torchvision"),
    "inception_v3(timm)": ("inception_v3", {"aux": False}, "timm"),
    "inception_v4": ("inception_v4", {}, "timm"),
    "inception_resnet_v2": ("inception_resnet_v2", {}, "timm"),
}
# model, arguments, and how many numbers the published network has in all variables but those of its logits:
# the first three are asserted in slim's own tests, the last follows from Keras's 55,873,736 with logits
SLIM = [
    ("googlenet", {"variant": "tf"}, 5_607_184),
    ("bn_inception", {"variant": "tf"}, 10_173_112),
    ("inception_v3", {}, 21_802_784),
    ("inception_resnet_v2", {}, 54_336_736),
]


@pytest.fixture(autouse=True)
def _no_weights():
    with nn.init.blank():
        yield


@pytest.mark.parametrize("key", LISTED)
def test_names_are_those_of_the_library(key):
    if not LISTS.exists():
        pytest.skip(f"{LISTS.name} is not in this checkout")
    name, arguments, layout = LISTED[key]
    expected = {}
    for twin, public, *_ in json.loads(LISTS.read_text(encoding="utf-8"))[key]:
        own = re.sub(r"^(stages|aux)\.", "", twin).replace(".b.", ".")
        expected[re.sub(r"\.up$", ".expand", own)] = public
    assert minidl_models.create(name, **arguments).weight_names(layout) == expected


@pytest.mark.parametrize(("name", "arguments", "numbers"), SLIM)
def test_slim_has_as_many_numbers(name, arguments, numbers):
    arrays = minidl_models.create(name, **arguments).export_weights(layout="tf")
    trunk = [
        key for key in arrays if "Logits/" not in key and not key.endswith("/gamma")
    ]  # slim learns no gamma
    assert sum(arrays[key].size for key in trunk) == numbers


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        (
            "googlenet",
            {"variant": "tf"},
            {
                "conv2r.conv": "InceptionV1/Conv2d_2b_1x1",
                "conv2.bn": "InceptionV1/Conv2d_2c_3x3/BatchNorm",
                "inc4e.3.1.conv": "InceptionV1/Mixed_4f/Branch_3/Conv2d_0b_1x1",
                "inc5a.2.1.conv": "InceptionV1/Mixed_5b/Branch_2/Conv2d_0a_3x3",  # sic
                "inc5b.2.1.conv": "InceptionV1/Mixed_5c/Branch_2/Conv2d_0b_3x3",
                "head.fc": "InceptionV1/Logits/Conv2d_0c_1x1",
            },
        ),
        (
            "bn_inception",
            {"variant": "tf"},
            {
                "conv1.dw": "InceptionV2/Conv2d_1a_7x7",
                "conv1.pw": "InceptionV2/Conv2d_1a_7x7",
                "inc3c.1.2.conv": "InceptionV2/Mixed_4a/Branch_1/Conv2d_1a_3x3",
                "inc4d.2.2.bn": "InceptionV2/Mixed_4e/Branch_2/Conv2d_0c_3x3/BatchNorm",
                "inc5b.3.1.conv": "InceptionV2/Mixed_5c/Branch_3/Conv2d_0b_1x1",
            },
        ),
        (
            "inception_v3",
            {},
            {
                "conv4a.bn": "InceptionV3/Conv2d_4a_3x3/BatchNorm",
                "mixed5b.1.1.conv": "InceptionV3/Mixed_5b/Branch_1/Conv2d_0b_5x5",
                "mixed5c.1.0.conv": "InceptionV3/Mixed_5c/Branch_1/Conv2d_0b_1x1",  # sic, as the next four
                "mixed5c.1.1.conv": "InceptionV3/Mixed_5c/Branch_1/Conv_1_0c_5x5",
                "mixed6a.0.conv": "InceptionV3/Mixed_6a/Branch_0/Conv2d_1a_1x1",
                "mixed6a.1.2.bn": "InceptionV3/Mixed_6a/Branch_1/Conv2d_1a_1x1/BatchNorm",
                "mixed7b.1.1.1.conv": "InceptionV3/Mixed_7b/Branch_1/Conv2d_0b_3x1",
                "mixed7c.1.1.1.conv": "InceptionV3/Mixed_7c/Branch_1/Conv2d_0c_3x1",
                "mixed7c.2.2.1.conv": "InceptionV3/Mixed_7c/Branch_2/Conv2d_0d_3x1",
                "aux.conv1.conv": "InceptionV3/AuxLogits/Conv2d_2a_5x5",
                "aux.fc": "InceptionV3/AuxLogits/Conv2d_2b_1x1",
            },
        ),
        (
            "inception_v4",
            {"aux": True},
            {
                "stem3a.1.conv": "InceptionV4/Mixed_3a/Branch_1/Conv2d_0a_3x3",  # sic
                "stem4a.1.3.conv": "InceptionV4/Mixed_4a/Branch_1/Conv2d_1a_3x3",
                "stem5a.0.conv": "InceptionV4/Mixed_5a/Branch_0/Conv2d_1a_3x3",
                "a4.3.1.conv": "InceptionV4/Mixed_5e/Branch_3/Conv2d_0b_1x1",
                "b7.2.4.conv": "InceptionV4/Mixed_6h/Branch_2/Conv2d_0e_1x7",
                "c3.2.3.1.conv": "InceptionV4/Mixed_7d/Branch_2/Conv2d_0e_3x1",
                "head.fc": "InceptionV4/Logits/Logits",
                "aux.fc": "InceptionV4/AuxLogits/Aux_logits",
            },
        ),
        (
            "inception_resnet_v2",
            {"aux": True},
            {
                "mixed5b.0.conv": "InceptionResnetV2/Mixed_5b/Branch_0/Conv2d_1x1",
                "a10.body.2.2.conv": "InceptionResnetV2/Repeat/block35_10/Branch_2/Conv2d_0c_3x3",
                "a1.body.0.bn": "InceptionResnetV2/Repeat/block35_1/Branch_0/Conv2d_1x1/BatchNorm",
                "a1.expand": "InceptionResnetV2/Repeat/block35_1/Conv2d_1x1",
                "redb.0.0.conv": "InceptionResnetV2/Mixed_7a/Branch_0/Conv2d_0a_1x1",
                "b20.body.1.2.conv": "InceptionResnetV2/Repeat_1/block17_20/Branch_1/Conv2d_0c_7x1",
                "c9.expand": "InceptionResnetV2/Repeat_2/block8_9/Conv2d_1x1",
                "c10.body.1.1.conv": "InceptionResnetV2/Block8/Branch_1/Conv2d_0b_1x3",
                "conv7b.conv": "InceptionResnetV2/Conv2d_7b_1x1",
                "aux.fc": "InceptionResnetV2/AuxLogits/Logits",
            },
        ),
    ],
)
def test_slims_names_where_its_rule_holds_and_where_it_does_not(name, arguments, expected):
    names = minidl_models.create(name, **arguments).weight_names("tf")
    assert {own: names[own] for own in expected} == expected


def test_torch_keeps_auxiliary_classifiers_in_the_middle():
    names = list(minidl_models.inception_v3().weight_names("torchvision").values())
    at = names.index("AuxLogits.conv0.conv")
    assert names[at - 1] == "Mixed_6e.branch_pool.bn"
    assert names[at + 5] == "Mixed_7a.branch3x3_1.conv"
    names = list(minidl_models.googlenet(variant="torchvision").weight_names("torchvision").values())
    assert names[-9:] == [
        *(f"{head}.{part}" for head in ("aux1", "aux2") for part in ("conv.conv", "conv.bn", "fc1", "fc2")),
        "fc",
    ]


def test_a_layout_that_a_variant_does_not_have():
    with pytest.raises(ValueError, match="no layout 'timm'; it has minidl"):
        minidl_models.inception_v4(variant="paper").weight_names("timm")
    with pytest.raises(ValueError, match="no layout 'torchvision'; it has minidl, tf"):
        minidl_models.googlenet(variant="tf").weight_names("torchvision")
