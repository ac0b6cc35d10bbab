"""`minidl bench`: the arithmetic of its figures, what it writes, and mistakes found before it measures."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import minidl as md
import minidl_models
from minidl import cli, nn
from minidl.inspection import bench, layer_rows, race

QUICK = ("bench", "resnet20", "--batch", "2", "--size", "16", "--steps", "2")
A_RACE = """
import json, sys
CASES = {"resnet20": None}
if __name__ == "__main__":
    print("racing", *sys.argv[1:-1])
    open(sys.argv[-1], "w").write(json.dumps([{"ratio": 2.0}]))
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "_GEMM", 64)
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.main, [*words], catch_exceptions=False)


def error(*words: str) -> str:
    """The last line of a command that fails before it has measured anything."""
    result = run(*words)
    assert result.exit_code != 0
    assert result.stdout == ""
    return result.stderr.splitlines()[-1]


def test_the_figures_follow_from_the_median_step() -> None:
    found = bench.Measurement("net", (8, 4, 4, 3), True, 1, (0.5, 4.0, 1.0), 250_000_000, 24.0, 5_000_000)
    assert (found.seconds, found.images_per_second) == (1.0, 8.0)
    assert (found.gflops, found.gemm_fraction) == (12.0, 0.5)  # 2 * 250e6 * 3 passes * 8 images
    text = " ".join(str(found).split())
    assert text == "net 8 x 4x4 1000.0 ms 8.0 images/s 12.0 GF/s = 0.50 of matmul's 24 peak 5 MB"
    inference = bench.Measurement("net", (8, 4, 4, 3), False, 1, (1.0,), 250_000_000, 24.0, 5_000_000)
    assert inference.gflops == 4.0


@pytest.mark.parametrize("infer", [False, True])
def test_the_file_holds_all_figures(infer: bool) -> None:
    result = run(*QUICK, "--layers", "--json", "figures.json", *(["--infer"] if infer else []))
    assert result.exit_code == 0, result.output
    (row,) = json.loads(Path("figures.json").read_text())["results"]
    layers = layer_rows(minidl_models.resnet20(), (16, 16, 3))
    assert (row["name"], row["input_shape"], row["training"]) == ("resnet20", [2, 16, 16, 3], not infer)
    assert row["macs"] == sum(layer.macs for layer in layers)
    assert (len(row["step_seconds"]), row["threads"]) == (2, md.get_num_threads())
    assert row["images_per_second"] == pytest.approx(2 / row["seconds"])
    assert row["gflops"] == pytest.approx(row["macs"] * 4 * (1 if infer else 3) / row["seconds"] / 1e9)
    assert row["gemm_fraction"] == pytest.approx(row["gflops"] / row["gemm_gflops"])
    assert row["peak_bytes"] > 0
    assert [each["path"] for each in row["layers"]["rows"]] == [layer.path for layer in layers]
    assert {"forward", "backward", "plans", "gflops", "share"} <= row["layers"]["rows"][0].keys()
    assert f"{row['images_per_second']:.1f} images/s" in result.stdout
    assert "forward pass of 2x16x16x3" in result.stdout if infer else "training step of" in result.stdout


def test_a_line_for_each_model_in_order_and_its_arguments() -> None:
    words = ("bench", "nin", "resnet20", "--batch", "2", "--steps", "1", "--infer", "--set", "num_classes=3")
    lines = run(*words).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["nin", "resnet20"]
    assert all(
        re.search(r" 2 x 32x32 .* images/s .* GF/s = .* of matmul's .* peak \d+ MB$", x) for x in lines
    )


def test_small_images_come_in_larger_batches() -> None:
    with nn.init.blank():
        nin, alexnet = minidl_models.nin(), minidl_models.alexnet()
    assert bench.batch_shape(nin, "nin", None, None) == (64, 32, 32, 3)
    assert bench.batch_shape(alexnet, "alexnet", None, None) == (8, *alexnet.input_shape)
    assert bench.batch_shape(alexnet, "alexnet", 3, 100) == (3, 100, 100, 3)


def test_peak_memory_grows_with_the_batch_and_training_keeps_more() -> None:
    def peak(batch: int, training: bool) -> int:
        shape = (batch, 32, 32, 3)
        return bench.measure(minidl_models.resnet20, "resnet20", shape, training=training, steps=1).peak_bytes

    small, large, inference = peak(2, True), peak(8, True), peak(8, False)
    assert inference < large
    assert 2 * small < large


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nought",), "there is no model 'nought'; the models are .*nin"),
        (("resnet20", "nought"), "there is no model 'nought'"),
        (("nin", "--set", "colour=1"), "takes no argument 'colour'"),
        (("nin", "--size", "16"), "size is 16, but nin takes images of 32x32 alone; leave it out"),
        (
            ("alexnet", "--size", "16"),
            "size is 16, but alexnet takes images of 67x67 or more; give a larger one",
        ),
        (("nin", "--batch", "0"), "Invalid value for '--batch'"),
        (("nin", "--threads", "999"), r"--threads: .*count is 999, it must lie in 1 \.\. "),
        (("nin", "--json", "nowhere/x.json"), "'--json': there is no folder nowhere; make it first"),
        ((), "Missing argument 'MODEL...'"),
    ],
)
def test_mistakes_are_found_first(words: tuple[str, ...], text: str) -> None:
    assert re.search(text, error("bench", *words))


def test_threads_are_those_asked_for() -> None:
    before = md.get_num_threads()
    try:
        run(*QUICK, "--threads", "1", "--json", "one.json")
        assert json.loads(Path("one.json").read_text())["results"][0]["threads"] == 1
    finally:
        md.set_num_threads(before)


# --- the race ---


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for tests/peers/compare.py, with torch found."""
    path = tmp_path / "compare.py"
    path.write_text(A_RACE)
    monkeypatch.setattr(race, "COMPARE", path)
    monkeypatch.setattr(race, "find_spec", lambda name: name)
    return path


def test_a_race_is_run_by_the_judge_of_the_repository(compare: Path) -> None:
    lines = run(*QUICK, "--infer", "--against", "torch", "--json", "figures.json").stdout.splitlines()
    threads = md.get_num_threads()
    assert lines[-1] == f"racing resnet20 --pairs 2 --threads {threads} --infer --json"
    report = json.loads(Path("figures.json").read_text())
    assert report["race"] == [{"ratio": 2.0}]
    assert len(report["results"]) == 1


def test_a_race_that_breaks_down(compare: Path) -> None:
    compare.write_text(A_RACE + "    sys.exit(3)\n")
    result = run(*QUICK, "--against", "torch")
    assert result.exit_code == 1
    assert re.search(r"compare.py ended with code 3; what it said is above", result.stderr)


def test_no_race_without_its_parts(compare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("bench", "nin", "--against", "torch")
    assert re.search("there is no case for 'nin' in .*; the cases are resnet20", error(*words))
    monkeypatch.setattr(race, "find_spec", lambda name: None)
    assert "PyTorch is not installed; pip install torch" in error(*words)
    compare.unlink()
    assert re.search("there is no .*compare.py, .* not with an installed minidl; clone it", error(*words))


def test_the_judge_is_where_it_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "find_spec", lambda name: name)
    race.check(["nin", "googlenet"])
    with pytest.raises(race.NoRace, match="no case for 'alexnet'"):
        race.check(["nin", "alexnet"])
