"""Logits, loss and every gradient of every placement, norm and option equal PyTorch's."""

import dataclasses
import json

import pytest
import torch
from conftest import ROOT
from reference import IGNORED_TARGET, ModelSpec, Transformer, loss_of, random_parameters

# Largest error against PyTorch in float64, relative to the tensor (norm of the difference over norm of the tensor).
# One float32 rounding is 6e-8; PyTorch's own float32 numbers are held to the same bounds.
LOGITS_TOLERANCE = 3e-6
LOSS_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 1e-5
# The errors of a part of a stacked matrix are relative to at least this share of the whole: the gradient of the keys'
# bias is exactly 0, as softmax ignores what is added to all logits of a row.
SMALLEST_PART = 0.1

NORMS = [(placement, kind) for placement in ("pre", "post", "none") for kind in ("layernorm", "rmsnorm")]

# Each is run with every placement and kind. `batch`, `time`, `z_loss` and `ignored` are not part of the model.
VARIANTS = {
    "plain": {},
    "gpt2": dict(ffn="gelu_tanh", bias=True),
    "llama": dict(position="rope", ffn="swiglu", kv_heads=2, tie_embeddings=False, ffn_width=88),
    "rope, one kv head, geglu, biases": dict(position="rope", rope_theta=100.0, kv_heads=1, ffn="geglu", bias=True),
    "alibi, relu": dict(position="alibi", ffn="relu", tie_embeddings=False),
    "alibi, 6 heads, 3 kv heads": dict(position="alibi", width=48, heads=6, kv_heads=3, bias=True),
    "sinusoidal, relu2": dict(position="sinusoidal", ffn="relu2"),
    "no positions, silu": dict(position="none", ffn="silu", bias=True, tie_embeddings=False),
    "z-loss, ignored targets": dict(z_loss=0.01, ignored=0.4),
    "norms without gain": dict(norm_gain=False),
    "norm biases alone": dict(norm_bias="on"),
    "linear biases alone": dict(norm_bias="off", bias=True),
    "final norm on": dict(final_norm="on", bias=True),
    "final norm off": dict(final_norm="off"),
    "large eps": dict(eps=0.3),
    "odd sizes": dict(width=21, heads=3, kv_heads=1, ffn_width=29, vocabulary=19, context=13, time=11, batch=3),
    "one head, sinusoidal": dict(width=14, heads=1, kv_heads=1, ffn_width=7, position="sinusoidal", batch=1),
    "one token": dict(context=1, time=1, layers=1),
    "one feature a head": dict(width=4, heads=4, kv_heads=2, ffn_width=5, position="none"),
    "a short sequence of a long context": dict(context=300, time=5, position="rope"),
    "several attention blocks": dict(context=200, time=197, kv_heads=2, batch=2, layers=1),
    "several attention blocks, alibi": dict(context=140, time=140, position="alibi", batch=1, layers=1),
    "wide rows": dict(width=256, ffn_width=520, heads=2, kv_heads=2, vocabulary=1000, layers=1, bias=True),
    "deep": dict(layers=9),
}


def compute(spec, parameters, tokens, targets, z_loss, dtype):
    model = Transformer(spec).to(dtype)
    model.load_state_dict(parameters)
    logits = model(tokens)
    loss = loss_of(logits, targets, z_loss)
    loss.backward()
    return logits.detach(), loss.detach(), {name: p.grad for name, p in model.named_parameters()}


def parts(name, tensor, spec):
    """The separate matrices stacked in a tensor: an error in a small one must not hide behind a large one."""
    if ".qkv." in name:
        width = spec.head_width
        q, k, v = tensor.split([spec.heads * width, spec.kv_heads * width, spec.kv_heads * width])
        return {f"{name} (q)": q, f"{name} (k)": k, f"{name} (v)": v}
    if ".ffn.input." in name and spec.ffn in ("swiglu", "geglu"):
        gate, up = tensor.chunk(2)
        return {f"{name} (gate)": gate, f"{name} (up)": up}
    return {name: tensor}


def assert_close(actual, exact, tolerance, what, floor=0.0):
    """`floor`: a norm below which errors are taken relative to it, for what is exactly or nearly 0."""
    assert actual.shape == exact.shape, what
    error = (actual.double() - exact).norm().item()
    scale = max(exact.norm().item(), floor)
    assert error <= tolerance * scale, f"{what}: error {error:.2e}, {error / max(scale, 1e-300):.2e} of {scale:.2e}"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("placement,kind", NORMS)
def test_equals_pytorch(probe, placement, kind, variant):
    options = dict(VARIANTS[variant])
    if kind == "rmsnorm":
        options.pop("norm_bias", None)  # it has none, and the config says so
    batch, z_loss, ignored = options.pop("batch", 2), options.pop("z_loss", 0.0), options.pop("ignored", 0.0)
    time = options.pop("time", options.get("context", ModelSpec.context))
    spec = ModelSpec(placement=placement, norm=kind, **options)

    generator = torch.Generator().manual_seed(len(variant))
    parameters = random_parameters(spec, seed=5)
    tokens = torch.randint(spec.vocabulary, (batch, time), generator=generator)
    targets = torch.randint(spec.vocabulary, (batch, time), generator=generator)
    targets[torch.rand(batch, time, generator=generator) < ignored] = IGNORED_TARGET

    probe.write_config(
        {
            "data": {"path": ".", "format": "bin", "vocab_size": spec.vocabulary},
            "model": spec.as_config(),
            "loss": {"z_loss": z_loss},
            "train": {"steps": 1, "batch": batch},
        }
    )
    probe.write_batches(tokens, targets)
    probe.write_tensors("params", parameters)
    ours = probe("model")

    logits, loss, gradients = compute(spec, parameters, tokens, targets, z_loss, torch.float64)
    torch32 = compute(spec, parameters, tokens, targets, z_loss, torch.float32)
    assert ours["gradients"].keys() == gradients.keys()
    for who, (its_logits, its_loss, its_gradients) in {
        "PyTorch float32": torch32,
        "Ballast": (ours["logits"].view(logits.shape), ours["loss"], ours["gradients"]),
    }.items():
        assert_close(its_logits, logits, LOGITS_TOLERANCE, f"{who}: logits")
        assert_close(its_loss, loss, LOSS_TOLERANCE, f"{who}: loss")
        for name, exact in gradients.items():
            floor = SMALLEST_PART * exact.norm().item()
            exact_parts, its_parts = parts(name, exact, spec), parts(name, its_gradients[name], spec)
            for part, value in exact_parts.items():
                assert_close(its_parts[part], value, GRADIENT_TOLERANCE, f"{who}: gradient of {part}", floor)


def test_without_any_norm(probe):
    """Kind `none`: whatever the placement, no norm parameters, and the stream is left alone."""
    results = []
    for placement in ("pre", "post", "none"):
        spec = ModelSpec(norm="none", placement=placement)
        parameters = random_parameters(spec, seed=3)
        tokens = torch.arange(32).view(2, 16) % spec.vocabulary
        targets = (tokens * 7 + 1) % spec.vocabulary
        probe.write_config(
            {
                "data": {"path": ".", "format": "bin", "vocab_size": spec.vocabulary},
                "model": spec.as_config(),
                "train": {"steps": 1, "batch": 2},
            }
        )
        probe.write_batches(tokens, targets)
        probe.write_tensors("params", parameters)
        ours = probe("model")
        logits, _, gradients = compute(spec, parameters, tokens, targets, 0.0, torch.float64)
        assert_close(ours["logits"].view(logits.shape), logits, LOGITS_TOLERANCE, placement)
        for name, exact in gradients.items():
            assert_close(ours["gradients"][name], exact, GRADIENT_TOLERANCE, f"{placement}: {name}")
        results.append(ours["logits"])
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_every_option_is_covered():
    """A kind that the config learns must come here too."""
    model = json.loads((ROOT / "configs" / "schema.json").read_text())["properties"]["model"]["properties"]

    fields = {field.name: field.default for field in dataclasses.fields(ModelSpec)}
    covered = {key: {fields[key]} | {v[key] for v in VARIANTS.values() if key in v} for key in fields}
    assert set(model["position"]["enum"]) == covered["position"]
    assert set(model["ffn"]["properties"]["kind"]["enum"]) == covered["ffn"]
    assert set(model["final_norm"]["enum"]) == covered["final_norm"]
    assert set(model["norm"]["properties"]["bias"]["enum"]) == covered["norm_bias"]
    assert set(model["norm"]["properties"]["placement"]["enum"]) == {placement for placement, _ in NORMS}
    assert set(model["norm"]["properties"]["kind"]["enum"]) == {kind for _, kind in NORMS} | {"none"}
