"""Fixtures: the program that computes with Ballast, and the files that it reads and writes."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

ROOT = Path(__file__).resolve().parents[2]


def save_tokens(directory, vocabulary, count):
    """train.bin and val.bin as nanoGPT's prepare.py writes them: uint16, no header. Returns their ids.

    The largest id occurs. Half of the tokens are a function of the one before, so that there is something to learn.
    """
    generator = np.random.default_rng(vocabulary)
    tokens = generator.integers(0, vocabulary, count)
    after = generator.integers(0, vocabulary, vocabulary)
    for i in np.flatnonzero(generator.random(count) < 0.5):
        tokens[i] = after[tokens[i - 1]]
    tokens[7] = vocabulary - 1
    tokens = tokens.astype(np.uint16)
    train, validation = tokens[: count * 9 // 10], tokens[count * 9 // 10 :]
    directory.mkdir()
    train.tofile(directory / "train.bin")
    validation.tofile(directory / "val.bin")
    return train, validation


class Probe:
    """A directory of inputs for `probe_model` (see probe_model.cpp), and what it makes of them."""

    def __init__(self, program, directory):
        self.program = program
        self.directory = directory

    def write_config(self, config):
        text = json.dumps({"data": {"path": ".", "format": "bin"}} | config)
        (self.directory / "config.json").write_text(text)

    def write_batches(self, tokens, targets):
        """Integers [steps, batch, time]."""
        np.asarray(tokens, dtype="<i4").tofile(self.directory / "tokens.bin")
        np.asarray(targets, dtype="<i4").tofile(self.directory / "targets.bin")

    def write_tensors(self, name, tensors):
        safetensors.torch.save_file(tensors, self.directory / f"{name}.safetensors")

    def text(self, command):
        """Runs a command and returns its standard output."""
        done = subprocess.run([self.program, command, self.directory], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def __call__(self, command):
        """Runs a command and returns its tensors by name; those called GROUP/NAME as {group: {name: tensor}}."""
        self.text(command)
        result = {}
        for name, tensor in safetensors.torch.load_file(self.directory / "result.safetensors").items():
            group, slash, rest = name.partition("/")
            if slash:
                result.setdefault(group, {})[rest] = tensor
            else:
                result[group] = tensor
        return result


@pytest.fixture(scope="session")
def build_directory():
    """$BALLAST_BUILD, or where the preset `release` builds."""
    directory = Path(os.environ.get("BALLAST_BUILD", ROOT / "build" / "release")).resolve()
    if not (directory / "tests" / "probe_model").exists():
        pytest.exit(f"{directory}/tests/probe_model is missing: build Ballast, or set BALLAST_BUILD", returncode=2)
    return directory


@pytest.fixture(scope="session")
def make_probe(build_directory):
    return lambda directory: Probe(build_directory / "tests" / "probe_model", directory)


@pytest.fixture
def probe(make_probe, tmp_path):
    return make_probe(tmp_path)


@pytest.fixture(autouse=True, scope="session")
def reproducible_torch():
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the models are tiny
