"""Event files as TensorBoard itself reads them."""

import json
import subprocess

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture
def train(build_directory, tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"the cat sat on mat {i * i}.\n" for i in range(60)))
    config = {
        "data": {"path": "text.txt"},
        "model": {"layers": 1, "heads": 2, "width": 16, "context": 8},
        "train": {"steps": 20, "batch": 4, "eval_every": 10, "eval_batches": 2, "checkpoint_every": 10},
        "log": {"tensorboard": True},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))

    def run(*arguments):
        command = [build_directory / "ballast", *arguments, "--threads", "1"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return tmp_path / "run"

    return run


def compare(run, steps):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == steps
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
    accumulator.Reload()
    assert set(accumulator.Tags()["scalars"]) == set().union(*records) - {"step", "tokens", "events"}
    for tag in accumulator.Tags()["scalars"]:
        expected = [(record["step"], record[tag]) for record in records if tag in record]
        events = accumulator.Scalars(tag)
        assert [event.step for event in events] == [step for step, _ in expected], tag
        assert [event.value for event in events] == pytest.approx([value for _, value in expected], rel=1e-6), tag


def test_tensorboard_shows_what_metrics_say(train):
    compare(train("train", "config.json", "--out", "run"), 20)


def test_a_run_that_goes_on(train):
    train("train", "config.json", "--out", "run")
    compare(train("resume", "run", "--set", "train.steps=30"), 30)
