"""counts.json, which the command line lists, against the golden table."""

import json
from pathlib import Path

import pytest

import minidl_models
import networks
from minidl_models import counts

MODELS = networks.reference()["models"]


def test_every_network_is_counted_as_in_the_golden_table() -> None:
    table = counts.read()
    assert {name: list(table[name]) for name in table} == {
        name: list(minidl_models.entry(name).variants) for name in minidl_models.names()
    }
    same = networks.same_counts()
    for row, network in networks.rows().items():
        expected = MODELS[row]
        c, h, w = expected["input"]
        for name, label in [network, *(other for other, like in same.items() if like == network)]:
            assert table[name][label] == {
                "input_shape": [h, w, c],
                "parameters": expected["params"],
                "macs": expected["macs"],
                "layers": expected["conv_and_linear_layers"],
            }, (row, name, label)


def test_the_program_writes_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "FILE", tmp_path / "counts.json")
    monkeypatch.setattr(counts, "names", lambda: ["nin", "resnet20"])
    counts.main()
    written = json.loads((tmp_path / "counts.json").read_text(encoding="utf-8"))
    monkeypatch.undo()
    assert written == {name: counts.read()[name] for name in ("nin", "resnet20")}


def test_remarks_are_on_networks_side_by_side() -> None:
    assert counts.remarks(["googlenet", "inception_v4"]) == []
    (remark,) = counts.remarks(["alexnet", "inception_v4", "googlenet"])
    alexnet, googlenet = (counts.read()[name]["paper"]["parameters"] for name in ("alexnet", "googlenet"))
    table = networks.reference()["googlenet_table1"]
    weights = sum(row["weights"] for row in table.values())
    convolutions = weights - table["linear"]["weights"]
    printed = 1000 * sum(row["paper_K"] for row in table.values())
    for figure in (
        f"would be {alexnet / 12e6:.1f}\nmillion",
        f"are {alexnet / googlenet:.1f} times",
        f"are {weights / 1e6:.2f} million",
        f"{convolutions / 1e6:.2f} million ({alexnet / convolutions:.1f} times",
        f"to {printed / 1e6:.1f} million\n({alexnet / printed:.1f} times",
    ):
        assert figure in remark
