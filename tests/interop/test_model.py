"""Logits, loss and every gradient of every placement, norm and option equal PyTorch's."""

import dataclasses
import itertools
import json

import pytest
import torch
from conftest import ROOT
from reference import IGNORED_TARGET, KINDS, PLACEMENTS, ModelSpec, Transformer, loss_of, random_parameters

# Largest error against PyTorch in float64, relative to the tensor (norm of the difference over norm of the tensor).
# One float32 rounding is 6e-8; PyTorch's own float32 numbers are held to the same bounds.
LOGITS_TOLERANCE = 3e-6
LOSS_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 1e-5
# The errors of a part of a stacked matrix are relative to at least this share of the whole: the gradient of the keys'
# bias is exactly 0, as softmax ignores what is added to all logits of a row.
SMALLEST_PART = 0.1
# Those of a vector (gains, biases, scalars) are relative to at least this share of the whole model's gradient: it is a sum
# over all rows, which may cancel, and is exactly 0 where the model does not see it: what is added to all keys, or to a
# feature that only batchnorms read, or a row's length in front of a norm of rows. PyTorch's float32 needs the same.
SMALLEST_VECTOR = 0.1

# Slots that no named placement has.
SLOTS = ({"pre": True, "post": True}, {"out": True, "post": True}, {"pre": True, "out": True, "post": True})
# Every cell of kind, placement, final norm and norm of queries and keys that a config can have.
CELLS = [
    (kind, placement, final_norm, qk_norm)
    for kind, placement, final_norm, qk_norm in itertools.product(
        KINDS, (*PLACEMENTS, *SLOTS), ("on", "off"), ("none", "head", "full")
    )
    if kind == "none" and (placement, final_norm, qk_norm) == ("none", "off", "none")
    or kind != "none"
    and (placement != "none" or final_norm == "on" or qk_norm != "none" or kind == "layernorm")
]

# Further schemes, each once.
SCHEMES = {
    "slots": dict(placement={"pre": True, "post": True}),
    "attention alone": dict(attn="sandwich", ffn_placement="none"),
    "attention post, ffn pre": dict(attn="post", ffn_placement="pre", norm="rmsnorm"),
    "Mix-LN": dict(layers=4, depths=({"until": 0.25, "placement": "post"},)),
    "several depths": dict(
        layers=5,
        placement="sandwich",
        depths=({"until": 0.2, "placement": "deepnorm"}, {"until": 0.6, "attn": "post"}, {"until": 0.8, "ffn": "none"}),
    ),
    "LN scaling": dict(layers=4, depth_scale="inv_sqrt"),
    "Peri-LN": dict(placement="sandwich", embedding_norm=True, bias=True),
    "OLMo 2": dict(norm="rmsnorm", placement="branch_out", eps=1e-6, qk_norm="full", position="rope", kv_heads=2),
    "NormFormer": dict(attn={"pre": True, "out": True}, inner_norm=True, head_scale=True, bias=True),
    "NormFormer, gated": dict(inner_norm=True, ffn="swiglu", ffn_width=44, head_scale=True),
    "ReZero": dict(placement="none", residual="rezero"),
    "SkipInit": dict(placement="none", residual="skipinit"),
    "Fixup": dict(placement="none", residual="fixup"),
    "LayerScale": dict(residual="layerscale"),
    "LayerScale, sandwich": dict(residual="layerscale", placement="sandwich", layerscale_init=0.3),
    "ReZero, DeepNorm": dict(residual="rezero", placement="deepnorm"),
    "partial RMS": dict(norm="rmsnorm", partial=0.3),
    "Gemma": dict(norm="rmsnorm", unit_offset=True, eps=1e-6, embedding_scale="sqrt_width", ffn="geglu"),
    "Gemma 2": dict(norm="rmsnorm", unit_offset=True, placement="sandwich", logit_softcap=2.0, position="rope"),
    "softcap, ALiBi": dict(logit_softcap=1.0, position="alibi"),
    "q, k and v": dict(qk_norm="head", v_norm="head", kv_heads=2, position="rope"),
    "v alone": dict(v_norm="full", kv_heads=1),
    "own norms": dict(
        qk_norm="head",
        v_norm="full",
        embedding_norm=True,
        inner_norm=True,
        placement={"pre": True, "out": True, "post": True},
        final_norm="on",
        own={
            "pre": {"kind": "rmsnorm", "eps": 0.1},
            "out": {"kind": "dyt", "bias": "off"},
            "post": {"gain": "off"},
            "final": {"kind": "scalenorm"},
            "embedding": {"kind": "batchnorm", "eps": 0.01},
            "qk": {"kind": "rmsnorm", "gain": "off"},
            "v": {"kind": "derf"},
            "inner": {"bias": "on"},
        },
        alpha=0.7,
        attention_alpha=0.4,
        shift=0.2,
    ),
    "DyT, two alphas, no gain": dict(norm="dyt", alpha=0.8, attention_alpha=0.2, norm_gain=False),
    "Derf, shifted, no bias": dict(norm="derf", alpha=0.6, shift=-0.3, norm_bias="off"),
    "BatchNorm, no gain, no bias": dict(norm="batchnorm", norm_gain=False, norm_bias="off"),
    "ScaleNorm, large eps": dict(norm="scalenorm", eps=5.0),
}

# Each is run with these placements and kinds. `batch`, `time`, `z_loss` and `ignored` are not part of the model.
NORMS = [("pre", "layernorm"), ("pre", "rmsnorm"), ("post", "layernorm"), ("post", "rmsnorm"), ("none", "layernorm")]
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
    """Logits, loss, gradients, and the logits in evaluation, where a batchnorm uses the statistics it was given."""
    model = Transformer(spec).to(dtype)
    model.load_state_dict(parameters)
    with torch.no_grad():
        evaluated = model.eval()(tokens)
    logits = model.train()(tokens)
    loss = loss_of(logits, targets, z_loss)
    loss.backward()
    return logits.detach(), loss.detach(), {name: p.grad for name, p in model.named_parameters()}, evaluated


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


def equals_pytorch(probe, spec, batch=2, time=None, z_loss=0.0, ignored=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    parameters = random_parameters(spec, seed=5)
    tokens = torch.randint(spec.vocabulary, (batch, time or spec.context), generator=generator)
    targets = torch.randint(spec.vocabulary, tokens.shape, generator=generator)
    targets[torch.rand(tokens.shape, generator=generator) < ignored] = IGNORED_TARGET

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

    logits, loss, gradients, evaluated = compute(spec, parameters, tokens, targets, z_loss, torch.float64)
    torch32 = compute(spec, parameters, tokens, targets, z_loss, torch.float32)
    assert ours["gradients"].keys() == gradients.keys()
    for who, (its_logits, its_loss, its_gradients, its_evaluated) in {
        "PyTorch float32": torch32,
        "Ballast": (
            ours["logits"].view(logits.shape),
            ours["loss"],
            ours["gradients"],
            ours["eval_logits"].view(logits.shape),
        ),
    }.items():
        assert_close(its_logits, logits, LOGITS_TOLERANCE, f"{who}: logits")
        assert_close(its_evaluated, evaluated, LOGITS_TOLERANCE, f"{who}: logits in evaluation")
        assert_close(its_loss, loss, LOSS_TOLERANCE, f"{who}: loss")
        whole = torch.stack([exact.norm() for exact in gradients.values()]).norm().item()
        for name, exact in gradients.items():
            floor = SMALLEST_PART * exact.norm().item() if exact.dim() > 1 else SMALLEST_VECTOR * whole
            exact_parts, its_parts = parts(name, exact, spec), parts(name, its_gradients[name], spec)
            for part, value in exact_parts.items():
                assert_close(its_parts[part], value, GRADIENT_TOLERANCE, f"{who}: gradient of {part}", floor)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("placement,kind", NORMS)
def test_equals_pytorch(probe, placement, kind, variant):
    options = dict(VARIANTS[variant])
    idle = {"norm_bias"} if kind == "rmsnorm" else set()  # which has none
    if placement == "none" and options.get("final_norm") != "on":
        idle = {"norm_bias", "norm_gain", "eps"}
    options = {key: value for key, value in options.items() if key not in idle}
    settings = {key: options.pop(key) for key in ("batch", "time", "z_loss", "ignored") if key in options}
    equals_pytorch(probe, ModelSpec(placement=placement, norm=kind, **options), seed=len(variant), **settings)


def name_of(value):
    """Of a parameter of a cell; None leaves it to pytest."""
    return "slots " + " ".join(value) if isinstance(value, dict) else None


@pytest.mark.parametrize("kind,placement,final_norm,qk_norm", CELLS, ids=name_of)
def test_cell_equals_pytorch(probe, kind, placement, final_norm, qk_norm):
    equals_pytorch(probe, ModelSpec(norm=kind, placement=placement, final_norm=final_norm, qk_norm=qk_norm))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scheme_equals_pytorch(probe, scheme):
    equals_pytorch(probe, ModelSpec(**SCHEMES[scheme]))


def test_every_option_is_covered():
    """A kind that the config learns must come here too."""
    model = json.loads((ROOT / "configs" / "schema.json").read_text())["properties"]["model"]["properties"]

    fields = {field.name: field.default for field in dataclasses.fields(ModelSpec)}
    specs = list(VARIANTS.values()) + list(SCHEMES.values())
    covered = {key: {fields[key]} | {v[key] for v in specs if key in v} for key in ("position", "ffn", "final_norm")}
    for key in ("norm_bias", "residual", "depth_scale", "embedding_scale", "qk_norm", "v_norm"):
        covered[key] = {fields[key]} | {v[key] for v in specs if key in v}
    assert set(model["position"]["enum"]) == covered["position"]
    assert set(model["ffn"]["properties"]["kind"]["enum"]) == covered["ffn"]
    assert set(model["final_norm"]["enum"]) == covered["final_norm"]
    assert set(model["residual"]["enum"]) == covered["residual"]
    assert set(model["qk_norm"]["enum"]) == {qk_norm for _, _, _, qk_norm in CELLS}
    assert set(model["v_norm"]["enum"]) == covered["v_norm"]
    assert set(model["embedding"]["properties"]["scale"]["enum"]) == covered["embedding_scale"]
    norm = model["norm"]["properties"]
    assert set(norm["bias"]["enum"]) == covered["norm_bias"]
    assert set(norm["depth_scale"]["enum"]) == covered["depth_scale"]
    assert set(norm["placement"]["anyOf"][0]["enum"]) == set(PLACEMENTS)
    assert set(norm["kind"]["enum"]) == {kind for kind, _, _, _ in CELLS}
    assert {site for site in norm if norm[site].get("type") == "object"} == set(SCHEMES["own norms"]["own"])
