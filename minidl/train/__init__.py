"""Training: the loop, recipes, callbacks, checkpoints, evaluation."""

from minidl.train import callbacks, checkpoint
from minidl.train.evaluate import evaluate, predict
from minidl.train.fit import fit
from minidl.train.recipe import Recipe, choose, default_for
from minidl.train.run import History, Run
from minidl.train.tune import read_table, tune, write_table
from minidl.train.warmup import warmup

__all__ = [
    "History",
    "Recipe",
    "Run",
    "callbacks",
    "checkpoint",
    "choose",
    "default_for",
    "evaluate",
    "fit",
    "predict",
    "read_table",
    "tune",
    "warmup",
    "write_table",
]
