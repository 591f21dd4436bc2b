"""Files that pass between Ballast and Python: safetensors both ways, and nanoGPT's token files."""

import json
import struct

import numpy as np
import pytest
import torch
from conftest import save_tokens
from safetensors.torch import load_file


def copied(probe, tensors):
    """Through Python's writer, our reader, our writer and Python's reader."""
    probe.write_config({})
    probe.write_tensors("copy", tensors)
    probe.text("copy")
    return load_file(probe.directory / "result.safetensors")


def same_bits(a, b):
    return a.shape == b.shape and torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def test_safetensors_both_ways(probe):
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (1000,), generator=generator).to(torch.int32)
    tensors = {
        "any bits": bits.view(torch.float32),  # NaNs with payloads, infinities and subnormals among them
        "blocks.0.attention.qkv.weight": torch.randn(12, 7, generator=generator),
        "rank four": torch.randn(2, 3, 1, 5, generator=generator),
        "scalar": torch.tensor(-0.0),
        'quotes " and \\ and \n and ü': torch.ones(1),
        **{f"many.{i}": torch.full((i,), float(i)) for i in range(1, 40)},
    }
    result = copied(probe, tensors)
    assert result.keys() == tensors.keys()
    for name, tensor in tensors.items():
        if tensor.dim() == 0:
            assert result[name].dim() == 0 and same_bits(result[name][None], tensor[None])
        else:
            assert same_bits(result[name], tensor), name


def test_our_safetensors_header(probe):
    """What the format's documentation asks for and not every reader checks."""
    copied(probe, {"b": torch.ones(3), "a": torch.ones(2, 2)})
    content = (probe.directory / "result.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + size]
    assert size % 8 == 0 and header.startswith(b"{") and header.rstrip(b" ").endswith(b"}")
    tensors = json.loads(header)
    assert tensors.pop("__metadata__") == {"format": "pt"}
    assert tensors == {
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "F32", "shape": [3], "data_offsets": [16, 28]},
    }
    assert len(content) == 8 + size + 28


def read_data(probe, **options):
    probe.write_config({"data": {"path": "data", "format": "bin"} | options, "model": {"context": 8}})
    return probe("data")


@pytest.mark.parametrize("vocabulary", [65, 256, 257, 50257, 65536])
def test_nanogpt_token_files(probe, vocabulary):
    train, validation = save_tokens(probe.directory / "data", vocabulary, count=3000)
    data = read_data(probe, vocab_size=vocabulary)
    assert np.array_equal(data["train"].numpy(), train)
    assert np.array_equal(data["validation"].numpy(), validation)
    assert data["vocab_size"] == vocabulary


def test_the_vocabulary_of_token_files(probe):
    train, validation = save_tokens(probe.directory / "data", vocabulary=70, count=3000)
    assert read_data(probe)["vocab_size"] == max(train.max(), validation.max()) + 1
    # nanoGPT's meta.pkl as JSON, which turns the keys of `itos` into strings.
    meta = {"vocab_size": 90, "itos": {i: chr(32 + i) for i in range(90)}, "stoi": {chr(32 + i): i for i in range(90)}}
    (probe.directory / "data" / "meta.json").write_text(json.dumps(meta))
    assert read_data(probe)["vocab_size"] == 90
    assert read_data(probe, vocab_size=128)["vocab_size"] == 128
