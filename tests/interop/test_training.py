"""Whole training steps: the same model, start and batches in PyTorch follow our loss curve."""

import json

import pytest
import torch
from conftest import ROOT, save_tokens
from reference import ModelSpec, Transformer, loss_of, parameter_groups
from safetensors import safe_open
from safetensors.torch import load_file

STEPS = 20
# Absolute, in nats, and relative. Two float32 programs drift apart; after 20 steps these differ by about 5e-7.
LOSS_TOLERANCE = 1e-5
GRADIENT_NORM_TOLERANCE = 1e-5

# On top of configs/shakespeare.json, nanoGPT's recipe for a CPU.
RECIPES = {
    "nanogpt": {},
    "micro-batches": {"train": {"micro_batch": 4}},
    "post-norm, rmsnorm": {"model": {"norm": {"placement": "post", "kind": "rmsnorm"}}},
    "llama": {
        "model": {
            "norm": {"kind": "rmsnorm"},
            "position": "rope",
            "kv_heads": 2,
            "ffn": {"kind": "swiglu", "width": 344},
            "tie_embeddings": False,
            "init": {"kind": "fan_in"},
        },
        "loss": {"z_loss": 1e-3},
    },
    "batchnorm, whose statistics run": {
        # A bias of the keys has no gradient but rounding, which Adam would blow up.
        "model": {"norm": {"kind": "batchnorm", "momentum": 0.3, "qk": {"bias": "off"}}, "qk_norm": "head"},
    },
    "norms of other kinds, layerscale": {
        "model": {
            "norm": {"placement": "sandwich", "out": {"kind": "dyt"}, "final": {"kind": "scalenorm"}},
            "residual": "layerscale",
            "head_scale": True,
        },
    },
    "no norms, biases, sgd": {
        "model": {"norm": {"placement": "none"}, "bias": True, "init": {"kind": "xavier"}},
        "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0, "clip": 0.5},
    },
}


def merged(base, override):
    result = dict(base)
    for key, value in override.items():
        result[key] = merged(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def make_optimizer(config, model):
    wanted = config["optimizer"]
    if wanted["kind"] == "sgd":
        assert wanted["weight_decay"] == 0
        return torch.optim.SGD(model.parameters(), momentum=wanted["momentum"], nesterov=wanted["nesterov"])
    groups = parameter_groups(model.named_parameters(), wanted["weight_decay"])
    return torch.optim.AdamW(groups, betas=tuple(wanted["betas"]), eps=wanted["eps"])


def train(model, config, inputs, targets, rates):
    """The losses and gradient norms of all steps."""
    optimizer = make_optimizer(config, model)
    losses, norms = [], []
    for step_inputs, step_targets, rate in zip(inputs, targets, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate.item()
        optimizer.zero_grad()
        loss = loss_of(model(step_inputs), step_targets, config["loss"]["z_loss"])
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), config["optimizer"]["clip"]).item())
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses), torch.tensor(norms), optimizer


@pytest.fixture(params=RECIPES, scope="module")
def run(request, make_probe, tmp_path_factory):
    """A finished run of ours: its resolved config, its result and its directory."""
    probe = make_probe(tmp_path_factory.mktemp("run"))
    save_tokens(probe.directory / "data", vocabulary=65, count=20_000)
    recipe = {
        "extends": str(ROOT / "configs" / "shakespeare.json"),
        "data": {"path": str(probe.directory / "data"), "format": "bin", "vocab_size": 65},
        "schedule": {"warmup": 5},
        "train": {"steps": STEPS},
    }
    probe.write_config(merged(recipe, RECIPES[request.param]))
    return json.loads(probe.text("config")), probe("train"), probe.directory


def test_follows_pytorch(run):
    config, ours, directory = run
    model = Transformer(ModelSpec.from_config(config["model"], 65))
    model.load_state_dict(ours["parameters"])
    losses, norms, optimizer = train(model, config, ours["inputs"].long(), ours["targets"].long(), ours["lr"])
    running = {name: buffer.clone() for name, buffer in model.named_buffers()}

    assert losses[-1] < losses[0] - 0.05, "nothing was learned, so nothing was compared"
    assert norms.max() > config["optimizer"]["clip"], "clipping never happened, so it was not compared"
    assert ours["loss"].tolist() == pytest.approx(losses.tolist(), abs=LOSS_TOLERANCE)
    assert ours["gradient_norm"].tolist() == pytest.approx(norms.tolist(), rel=GRADIENT_NORM_TOLERANCE)

    # The checkpoint is what the run holds, by the names of PyTorch's module.
    checkpoint = directory / "checkpoints" / f"step-{STEPS:08d}"
    saved = load_file(checkpoint / "params.safetensors")
    assert saved.keys() == ours["trained"].keys()
    assert all(torch.equal(saved[name], ours["trained"][name]) for name in saved)
    with safe_open(checkpoint / "params.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
    trained = Transformer(model.spec)
    trained.load_state_dict(saved)
    batch, targets = ours["inputs"][0].long(), ours["targets"][0].long()
    assert loss_of(trained(batch), targets).item() == pytest.approx(loss_of(model(batch), targets).item(), abs=1e-4)

    # So is the optimizer's state, moment by moment.
    moments = load_file(checkpoint / "optim.safetensors")
    known = {"m": "exp_avg", "v": "exp_avg_sq", "velocity": "momentum_buffer"}
    trained_names = [name for name, _ in model.named_parameters()]
    assert moments.keys() == {f"{name}.{moment}" for moment in known if moment in ours for name in trained_names}
    for name, parameter in model.named_parameters():
        for moment in known.keys() & ours.keys():
            theirs, mine = optimizer.state[parameter][known[moment]], moments[f"{name}.{moment}"]
            assert torch.equal(mine, ours[moment][name])
            assert (mine - theirs).norm() <= 1e-4 * theirs.norm(), f"{name}.{moment}"

    # A batchnorm's running statistics, which every step moved.
    for name, theirs in running.items():
        assert (saved[name] - theirs).norm() <= 1e-4 * theirs.norm() + 1e-6, name
        assert not torch.equal(saved[name], ours["parameters"][name]), name


def test_starts_as_the_config_says(run):
    """The spread of every matrix at the start: model.init."""
    config, ours, _ = run
    spec = ModelSpec.from_config(config["model"], 65)
    kind, std = config["model"]["init"]["kind"], config["model"]["init"]["std"]
    for name, value in ours["parameters"].items():
        if name.endswith((".gain", ".head_scale", ".running_variance")):
            start = spec.width**0.5 if spec.own.get("final", {}).get("kind") == "scalenorm" and "final" in name else 1
            assert torch.all(value == torch.tensor(start))
            continue
        if name.endswith((".alpha", ".branch_scale")):
            assert torch.all(value == torch.tensor(spec.alpha if name.endswith(".alpha") else 0.1))
            continue
        if name.endswith((".bias", ".running_mean")):
            assert torch.all(value == 0)
            continue
        rows, columns = value.shape
        if "qkv" in name:
            rows = spec.width
        elif ".ffn.input." in name:
            rows = spec.ffn_width
        embedding = name.startswith("embedding.")
        if kind == "gpt2":
            expected = std / (2 * spec.layers) ** 0.5 if ".output." in name else std
        elif embedding:
            expected = spec.width**-0.5
        else:
            expected = (2 / (rows + columns)) ** 0.5 if kind == "xavier" else columns**-0.5
        error = 4 / (2 * value.numel()) ** 0.5  # four standard errors of a standard deviation
        assert value.std().item() == pytest.approx(expected, rel=error), name
        assert abs(value.mean().item()) <= 4 * expected / value.numel() ** 0.5, name
        assert (value.abs().max() <= 3**0.5 * expected * 1.000001) == (kind == "xavier" and not embedding), name
