"""Which class is taken for which, as text and as a CSV file."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from minidl.io import write_atomic

TABLE = 20  # classes, at most, of which a table is printed
MOST = 5  # of the confusions, those that are named
_WIDTH = 6  # of a column: the names above are cut


def echo(confusion: np.ndarray, classes: Sequence[str]) -> None:
    """Print the table, unless there are many classes, and the most frequent confusions.  (K, K)"""
    if len(classes) <= TABLE:
        _echo_table(confusion, classes)
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, confusion)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST]
    click.echo("most frequent confusions:" if wrong.any() else "no confusions")
    for true, taken in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if count := wrong[true, taken]:
            share = count / confusion[true].sum()
            click.echo(f"  {classes[true]} taken for {classes[taken]}: {count}, {share:.1%} of its images")


def echo_per_class(accuracies: np.ndarray, classes: Sequence[str]) -> None:
    """Print the accuracy on each class.  (K,)"""
    width = max(map(len, classes))
    for name, accuracy in zip(classes, accuracies, strict=True):
        click.echo(f"{name:<{width}}  {'no images' if np.isnan(accuracy) else f'{accuracy:.4f}'}")


def write(path: Path, confusion: np.ndarray, classes: Sequence[str]) -> None:
    """A CSV file: one row per true class, one column per class it was taken for."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["true class", *classes])
    for name, counts in zip(classes, confusion.tolist(), strict=True):
        rows.writerow([name, *counts])
    write_atomic(path, text.getvalue().encode())


def _echo_table(confusion: np.ndarray, classes: Sequence[str]) -> None:
    label = max(map(len, classes))
    width = max(len(str(confusion.max())), min(_WIDTH, label))
    click.echo("confusions: true classes in rows, what they are taken for in columns")
    click.echo(" ".join([" " * label, *(f"{name[:_WIDTH]:>{width}}" for name in classes)]))
    for name, counts in zip(classes, confusion.tolist(), strict=True):
        click.echo(" ".join([f"{name:<{label}}", *(f"{count:>{width}}" for count in counts)]))
