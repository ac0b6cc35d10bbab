"""GoogLeNet in the columns of its paper's table 1, against weights and multiply-adds counted elsewhere."""

import pytest

import minidl_models
import networks
from minidl import nn
from minidl.inspection import layer_rows, summary
from minidl.inspection.four_branches import TableRow, four_branch_rows

Table = tuple[tuple[str, ...], dict[str, TableRow]]

TABLE_1 = networks.reference()["googlenet_table1"]


@pytest.fixture(scope="module")
def table() -> Table:
    """(titles of the widths, rows by name)."""
    with nn.init.blank():
        model = minidl_models.googlenet()
    titles, rows = four_branch_rows(model, layer_rows(model, model.input_shape))
    return titles, {row.name: row for row in rows}


def test_weights_and_multiply_adds_of_every_row(table: Table) -> None:
    _, rows = table
    named = {row.removeprefix("inc").replace("head.fc", "linear"): row for row in rows}
    for name, expected in TABLE_1.items():
        row = rows[named[name]]
        assert (row.weights, row.macs) == (expected["weights"], expected["macs"]), name
    assert {named[name] for name in TABLE_1} == {name for name, row in rows.items() if row.weights}


def test_rows_widths_windows_and_depths_are_the_papers(table: Table) -> None:
    titles, rows = table
    assert titles == ("#1x1", "#3x3 reduce", "#3x3", "#5x5 reduce", "#5x5", "pool proj")
    assert [name for name, row in rows.items() if row.depth == 0] == [
        *("pool1", "pool2", "pool3", "pool4", "head.pool")
    ]
    assert rows["inc4d"].widths == (112, 144, 288, 32, 64, 64)
    assert rows["conv2"].widths == (None, 64, 192, None, None, None)
    assert [rows[name].window for name in ("conv1", "conv2", "pool3", "head.pool", "head.fc")] == [
        *("7x7/2", "3x3/1", "3x3/2", "7x7/1", "")
    ]
    assert rows["inc5b"].output == (7, 7, 1024)
    assert sum(row.depth for row in rows.values()) == 22  # "22 layers deep", section 5


def test_other_windows_are_in_the_titles() -> None:
    with nn.init.blank():
        model = minidl_models.googlenet(variant="torchvision", aux=False, num_classes=10)
    titles, rows = four_branch_rows(model, layer_rows(model, (32, 32, 3)))
    assert titles[3:5] == ("#3x3 reduce", "#3x3")
    assert [row.name for row in rows][:3] == ["conv1", "pool1", "conv2"]


def module(*branches: nn.Module) -> nn.Sequential:
    return nn.Sequential({"m": nn.Concat(list(branches))})


def convs(*kernels: int) -> nn.Sequential:
    return nn.Sequential(*[nn.Conv2d(4, 4, k, padding=k // 2) for k in kernels])


def pool_and_conv() -> nn.Sequential:
    return nn.Sequential(nn.MaxPool2d(3, 1, padding=1), nn.Conv2d(4, 4, 1))


@pytest.mark.parametrize(
    "net",
    [
        convs(1, 3),
        module(convs(1), convs(1, 3), convs(1, 5)),
        module(convs(1), convs(1, 3), convs(1, 3, 3), pool_and_conv()),
        module(convs(1), convs(3, 1), convs(1, 5), pool_and_conv()),
        nn.Sequential(
            module(convs(1), convs(1, 3), convs(1, 5), pool_and_conv()),
            nn.Conv2d(16, 4, 1),
            module(convs(1), convs(1, 3), convs(1, 5), convs(1)),
        ),
    ],
)
def test_other_networks_have_no_such_table(net: nn.Module) -> None:
    assert four_branch_rows(net, layer_rows(net, (8, 8, 4))) == ((), [])


def test_the_summary_ends_with_it_and_counts_what_only_training_runs() -> None:
    with nn.init.blank():
        text = summary(minidl_models.googlenet(num_classes=10))
    assert "training alone" in text
    assert text.splitlines()[-1].startswith("total  ")
    net = module(convs(1), convs(1, 3), convs(1, 5), pool_and_conv())
    assert "arXiv:1409.4842" in summary(net, (8, 8, 4))
    assert "training alone" not in summary(net, (8, 8, 4))
