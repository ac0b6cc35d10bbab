"""What every network of the zoo costs, in counts.json, so that listing them builds none.

    python -m minidl_models.counts

counts them again and writes the file; the zoo's tests compare it with the golden table.
"""

import json
from pathlib import Path
from typing import Any

from minidl.inspection import layer_rows
from minidl_models import create, entry, names

FILE = Path(__file__).with_name("counts.json")

# What the figures of two networks side by side do not explain by themselves.
REMARKS = {
    ("alexnet", "googlenet"): (
        "The paper of GoogLeNet says that it has 12 times fewer parameters than AlexNet, which would be 5.1\n"
        "million. Counted here are 8.7 times fewer. Without biases they are 6.99 million, the convolutions\n"
        "alone 5.97 million (10.2 times fewer), and the rows of the paper's table 1 add up to 6.8 million\n"
        "(9.0 times fewer): none of these counts gives 12."
    )
}


def read() -> dict[str, dict[str, dict[str, Any]]]:
    """Name -> variant -> {"input_shape", "parameters", "macs", "layers"}."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def remarks(models: list[str]) -> list[str]:
    """Those on the networks of these names."""
    return [text for pair, text in REMARKS.items() if set(pair) <= set(models)]


def count(name: str, variant: str) -> dict[str, Any]:
    """Of one network; parameters without auxiliary classifiers, multiply-adds of one image."""
    model = create(name, **entry(name).variants[variant])
    if model.input_shape is None:
        raise ValueError(f"{name}, {variant}: the model has no input_shape, so its costs cannot be counted")
    rows = layer_rows(model, model.input_shape)
    return {
        "input_shape": list(model.input_shape),
        "parameters": sum(row.params for row in rows),
        "macs": sum(row.macs for row in rows),
        "layers": sum(row.macs > 0 for row in rows),
    }


def main() -> None:
    """Count every network and write the file, a line for each."""
    lines = []
    for name in names():
        variants = [
            f"  {json.dumps(label)}: {json.dumps(count(name, label))}" for label in entry(name).variants
        ]
        lines.append(f" {json.dumps(name)}: {{\n" + ",\n".join(variants) + "\n }")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
