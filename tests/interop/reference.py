"""The model that Ballast trains, written in PyTorch from the papers: an independent reference for its numbers.

Parameters have the names of Ballast's files, so `load_state_dict` takes what `params.safetensors` holds. Everything
works in float32 and in float64 (`model.double()`).
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

IGNORED_TARGET = -1

ACTIVATIONS = {
    "gelu": lambda x: F.gelu(x),  # with erf: Hendrycks & Gimpel, 1606.08415
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),  # So et al., 2109.08668
    "silu": F.silu,
}
GATED = {"swiglu": F.silu, "geglu": F.gelu}  # Shazeer, 2002.05202


# Slots of a sublayer that hold a norm. The names are those of the config.
PLACEMENTS = {
    "pre": ("pre",),  # Wang et al., 1906.01787; Xiong et al., 2002.04745
    "post": ("post",),  # Vaswani et al. 2017, section 3.1
    "sandwich": ("pre", "out"),  # CogView, 2105.13290; Peri-LN, 2502.02732
    "branch_out": ("out",),  # OLMo 2, 2501.00656
    "deepnorm": ("post",),  # DeepNet, 2203.00555
    "none": (),
}

KINDS = ("none", "layernorm", "rmsnorm", "batchnorm", "scalenorm", "dyt", "derf")
SITES = ("pre", "out", "post", "final", "embedding", "qk", "v", "inner")


@dataclass(frozen=True)
class ModelSpec:
    """The `model` object of a config, every key given, and the vocabulary."""

    vocabulary: int = 31
    layers: int = 2
    heads: int = 4
    kv_heads: int = 4
    width: int = 32
    context: int = 16
    ffn: str = "gelu"
    ffn_width: int = 64
    inner_norm: bool = False
    norm: str = "layernorm"
    placement: str | dict = "pre"
    attn: str | dict = "auto"
    ffn_placement: str | dict = "auto"
    depths: tuple = ()  # model.norm.layers
    depth_scale: str = "none"
    eps: float = 1e-5
    norm_gain: bool = True
    norm_bias: str = "auto"
    unit_offset: bool = False
    partial: float = 1.0
    momentum: float = 0.1
    alpha: float = 0.5
    attention_alpha: float = 0.0
    shift: float = 0.0
    own: dict = field(default_factory=dict)  # {site: {"kind": ..., "eps": ..., "gain": ..., "bias": ...}}
    final_norm: str = "auto"
    embedding_scale: str = "none"
    embedding_norm: bool = False
    qk_norm: str = "none"
    v_norm: str = "none"
    logit_softcap: float = 0.0
    head_scale: bool = False
    residual: str = "plain"
    layerscale_init: float = 0.0
    position: str = "learned"
    rope_theta: float = 10000.0
    tie_embeddings: bool = True
    bias: bool = False

    @property
    def head_width(self):
        return self.width // self.heads

    def placement_of(self, block, sublayer):
        """What stands around a sublayer ("attn" or "ffn") of a block, counted from 0: a name or an object of slots."""
        here = {"placement": self.placement, "attn": self.attn, "ffn": self.ffn_placement}
        result = here["placement"] if here[sublayer] == "auto" else here[sublayer]
        for entry in self.depths:
            if (block + 1) / self.layers <= entry["until"] + 1e-12:
                for key in ("placement", sublayer):
                    if entry.get(key, "auto") != "auto":
                        result = entry[key]
                break
        return result

    def slots_of(self, block, sublayer):
        placement = self.placement_of(block, sublayer)
        if isinstance(placement, dict):
            return tuple(slot for slot, on in placement.items() if on)
        return PLACEMENTS[placement]

    @property
    def has_final_norm(self):
        if self.final_norm != "auto":
            return self.final_norm == "on"
        if "post" in self.slots_of(self.layers - 1, "ffn"):
            return False
        around = [self.slots_of(block, sublayer) for block in range(self.layers) for sublayer in ("attn", "ffn")]
        return self.norm != "none" and any("post" not in slots and slots for slots in around)

    def norm_at(self, site, in_attention=False):
        """The keyword arguments of make_norm for a site."""
        own = self.own.get(site, {})
        kind = own.get("kind", "auto")
        inherits = kind == "auto"
        kind = self.norm if inherits else kind
        bias_by_kind = {"layernorm": self.bias, "batchnorm": True, "dyt": True, "derf": True}.get(kind, False)
        bias = {"auto": bias_by_kind, "on": True, "off": False}
        has_bias = own.get("bias", "auto")
        if has_bias == "auto":
            has_bias = self.norm_bias if inherits else "auto"
        gain = own.get("gain", "auto")
        return dict(
            kind=kind,
            eps=own.get("eps", 0) or self.eps,
            gain=self.norm_gain if gain == "auto" else gain == "on",
            bias=bias[has_bias],
            unit_offset=self.unit_offset,
            partial=self.partial,
            momentum=self.momentum,
            alpha=self.attention_alpha if in_attention and self.attention_alpha > 0 else self.alpha,
            shift=self.shift,
        )

    def as_config(self):
        """The `model` object that says this to Ballast."""
        return {
            "layers": self.layers,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "width": self.width,
            "context": self.context,
            "ffn": {"kind": self.ffn, "width": self.ffn_width, "inner_norm": self.inner_norm},
            "norm": {
                "kind": self.norm,
                "placement": self.placement,
                "attn": self.attn,
                "ffn": self.ffn_placement,
                "layers": list(self.depths),
                "depth_scale": self.depth_scale,
                "eps": self.eps,
                "gain": self.norm_gain,
                "bias": self.norm_bias,
                "unit_offset": self.unit_offset,
                "partial": self.partial,
                "momentum": self.momentum,
                "alpha": self.alpha,
                "attention_alpha": self.attention_alpha,
                "shift": self.shift,
            }
            | self.own,
            "final_norm": self.final_norm,
            "embedding": {"scale": self.embedding_scale, "norm": self.embedding_norm},
            "qk_norm": self.qk_norm,
            "v_norm": self.v_norm,
            "logit_softcap": self.logit_softcap,
            "head_scale": self.head_scale,
            "residual": self.residual,
            "layerscale_init": self.layerscale_init,
            "position": self.position,
            "rope": {"theta": self.rope_theta},
            "tie_embeddings": self.tie_embeddings,
            "bias": self.bias,
            "dropout": 0.0,
        }

    @staticmethod
    def from_config(model, vocabulary):
        """From the `model` object of a config in which every key is given. It must not ask for dropout."""
        assert model["dropout"] == 0, "the reference has no dropout"
        norm = model["norm"]
        return ModelSpec(
            vocabulary=vocabulary,
            layers=model["layers"],
            heads=model["heads"],
            kv_heads=model["kv_heads"],
            width=model["width"],
            context=model["context"],
            ffn=model["ffn"]["kind"],
            ffn_width=model["ffn"]["width"],
            inner_norm=model["ffn"]["inner_norm"],
            norm=norm["kind"],
            placement=norm["placement"],
            attn=norm["attn"],
            ffn_placement=norm["ffn"],
            depths=tuple(norm["layers"]),
            depth_scale=norm["depth_scale"],
            eps=norm["eps"],
            norm_gain=norm["gain"],
            norm_bias=norm["bias"],
            unit_offset=norm["unit_offset"],
            partial=norm["partial"],
            momentum=norm["momentum"],
            alpha=norm["alpha"],
            attention_alpha=norm["attention_alpha"],
            shift=norm["shift"],
            own={site: norm[site] for site in SITES},
            final_norm=model["final_norm"],
            embedding_scale=model["embedding"]["scale"],
            embedding_norm=model["embedding"]["norm"],
            qk_norm=model["qk_norm"],
            v_norm=model["v_norm"],
            logit_softcap=model["logit_softcap"],
            head_scale=model["head_scale"],
            residual=model["residual"],
            layerscale_init=model["layerscale_init"],
            position=model["position"],
            rope_theta=model["rope"]["theta"],
            tie_embeddings=model["tie_embeddings"],
            bias=model["bias"],
        )


class GainBias(nn.Module):
    """What most norms end with: y = gain * x + bias, either of them optional."""

    def __init__(self, width, gain, bias, **_):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width)) if gain else None
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def finish(self, x):
        x = x if self.gain is None else self.gain * x
        return x if self.bias is None else x + self.bias


class LayerNorm(GainBias):
    """Ba et al., 1607.06450, equation 4, with the biased variance."""

    def __init__(self, width, eps, **options):
        super().__init__(width, **options)
        self.eps = eps

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.gain, self.bias, self.eps)


class RMSNorm(nn.Module):
    """Zhang & Sennrich, 1910.07467, equation 4, with eps added to the mean square; section 4 for the partial form.

    With a unit offset (Gemma, 2403.08295) the factor is 1 + gain.
    """

    def __init__(self, width, eps, gain, unit_offset, partial, **_):
        super().__init__()
        self.eps, self.unit_offset = eps, unit_offset
        self.features = math.ceil(partial * width - 1e-9)
        start = torch.zeros if unit_offset else torch.ones
        self.gain = nn.Parameter(start(width)) if gain else None

    def forward(self, x):
        y = x / torch.sqrt(x[..., : self.features].square().mean(dim=-1, keepdim=True) + self.eps)
        if self.gain is None:
            return y
        return (1 + self.gain) * y if self.unit_offset else self.gain * y


class BatchNorm(GainBias):
    """Ioffe & Szegedy, 1502.03167, over all tokens of the batch; torch.nn.BatchNorm1d keeps the running statistics."""

    def __init__(self, width, eps, momentum, **options):
        super().__init__(width, **options)
        self.eps, self.momentum = eps, momentum
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_variance", torch.ones(width))

    def forward(self, x):
        rows = F.batch_norm(
            x.reshape(-1, x.shape[-1]),
            self.running_mean,
            self.running_variance,
            self.gain,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )
        return rows.view(x.shape)


class ScaleNorm(nn.Module):
    """Nguyen & Salazar, 1910.05895, equation 3: one learned length for every row."""

    def __init__(self, width, eps, **_):
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.full((1,), math.sqrt(width)))

    def forward(self, x):
        return self.gain * x / x.norm(dim=-1, keepdim=True).clamp(min=self.eps)


class DyT(GainBias):
    """Zhu et al., 2503.10622, equation 4."""

    def __init__(self, width, alpha, **options):
        super().__init__(width, **options)
        self.alpha = nn.Parameter(torch.full((1,), alpha))

    def forward(self, x):
        return self.finish(torch.tanh(self.alpha * x))


class Derf(GainBias):
    """Chen et al., 2512.10938."""

    def __init__(self, width, alpha, shift, **options):
        super().__init__(width, **options)
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.shift = nn.Parameter(torch.full((1,), shift))

    def forward(self, x):
        return self.finish(torch.erf(self.alpha * x + self.shift))


NORMS = {
    "layernorm": LayerNorm,
    "rmsnorm": RMSNorm,
    "batchnorm": BatchNorm,
    "scalenorm": ScaleNorm,
    "dyt": DyT,
    "derf": Derf,
}


def make_norm(width, kind, **options):
    return nn.Identity() if kind == "none" else NORMS[kind](width=width, **options)


def sinusoids(time, width):
    """Vaswani et al. 2017, section 3.5: PE(p, 2i) = sin(p / 10000^(2i/d)), PE(p, 2i+1) = cos(the same)."""
    position = torch.arange(time, dtype=torch.float64)[:, None]
    table = torch.zeros(time, width, dtype=torch.float64)
    table[:, 0::2] = torch.sin(position / 10000 ** (torch.arange(0, width, 2) / width))
    table[:, 1::2] = torch.cos(position / 10000 ** (torch.arange(0, width - 1, 2) / width))
    return table


def rotate(x, theta):
    """Su et al., 2104.09864, in the half-split form of the LLaMA code: feature i is paired with feature i + d/2."""
    time, width = x.shape[-2:]
    frequency = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.outer(torch.arange(time, dtype=torch.float64), frequency)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., : width // 2], x[..., width // 2 :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def alibi_slopes(heads):
    """Press et al., 2108.12409, section 3, and its code for a number of heads that is no power of two."""
    closest = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / closest) for i in range(closest)]
    between = [2 ** (-8 * (i + 1) / (2 * closest)) for i in range(0, 2 * closest, 2)]
    return torch.tensor(slopes + between[: heads - closest], dtype=torch.float64)


class Sublayer(nn.Module):
    """One branch of a block, its norms and its place beside the residual stream.

    post(skip * x + scale * out(branch(pre_scale * pre(x)))), where a slot without a norm is the identity.
    """

    def __init__(self, spec, block, name, residual_scale):
        super().__init__()
        slots = spec.slots_of(block, name)
        in_attention = name == "attn"

        def slot(site):
            return make_norm(spec.width, **spec.norm_at(site, in_attention)) if site in slots else nn.Identity()

        self.pre_norm, self.out_norm, self.post_norm = slot("pre"), slot("out"), slot("post")
        self.pre_scale = (block + 1) ** -0.5 if spec.depth_scale == "inv_sqrt" and "pre" in slots else 1.0
        deep = spec.placement_of(block, name) == "deepnorm" and spec.norm != "none"
        self.skip = (2 * spec.layers) ** 0.25 if deep else 1.0
        # ReZero, 2003.04887: one factor for both branches of a block, which is not this module's parameter.
        self.shared = [residual_scale]
        self.branch_scale = None
        if spec.residual == "skipinit":  # De & Smith, 2002.10444
            self.branch_scale = nn.Parameter(torch.zeros(1))
        if spec.residual == "layerscale":  # CaiT, 2103.17239
            start = 0.1 if spec.layers <= 18 else 1e-5 if spec.layers <= 24 else 1e-6
            self.branch_scale = nn.Parameter(torch.full((spec.width,), spec.layerscale_init or start))

    def branch(self, x):
        raise NotImplementedError

    def forward(self, x):
        y = self.out_norm(self.branch(self.pre_norm(x) * self.pre_scale))
        for scale in (self.shared[0], self.branch_scale):
            y = y if scale is None else scale * y
        return self.post_norm(self.skip * x + y)


def by_head(norm, x, rows, head_width):
    """A norm of queries, keys or values [batch, time, heads * head_width]."""
    if rows == "head":
        return norm(x.view(*x.shape[:-1], -1, head_width)).view(x.shape)
    return norm(x)


class Attention(Sublayer):
    """Causal self-attention (Vaswani et al. 2017, equation 1), grouped as in Ainslie et al., 2305.13245.

    A row of the packed projection is [q of all heads | k of all kv heads | v of all kv heads].
    """

    def __init__(self, spec, block, residual_scale):
        super().__init__(spec, block, "attn", residual_scale)
        self.heads, self.kv_heads, self.head_width = spec.heads, spec.kv_heads, spec.head_width
        self.rope_theta = spec.rope_theta if spec.position == "rope" else None
        self.slopes = alibi_slopes(spec.heads) if spec.position == "alibi" else None
        self.softcap = spec.logit_softcap
        self.qk_rows, self.v_rows = spec.qk_norm, spec.v_norm
        self.qkv = nn.Linear(spec.width, (spec.heads + 2 * spec.kv_heads) * spec.head_width, bias=spec.bias)
        self.output = nn.Linear(spec.width, spec.width, bias=spec.bias)

        def norm(rows, site, heads):
            if rows == "none":
                return nn.Identity()
            return make_norm(spec.head_width * (heads if rows == "full" else 1), **spec.norm_at(site, True))

        self.q_norm = norm(spec.qk_norm, "qk", spec.heads)
        self.k_norm = norm(spec.qk_norm, "qk", spec.kv_heads)
        self.v_norm = norm(spec.v_norm, "v", spec.kv_heads)
        self.head_scale = nn.Parameter(torch.ones(spec.heads)) if spec.head_scale else None

    def branch(self, x):
        batch, time, _ = x.shape

        def split(packed, heads):  # [batch, heads, time, head_width]
            return packed.reshape(batch, time, heads, self.head_width).transpose(1, 2)

        sizes = [count * self.head_width for count in (self.heads, self.kv_heads, self.kv_heads)]
        q, k, v = self.qkv(x).split(sizes, dim=-1)
        q = by_head(self.q_norm, q.contiguous(), self.qk_rows, self.head_width)
        k = by_head(self.k_norm, k.contiguous(), self.qk_rows, self.head_width)
        v = by_head(self.v_norm, v.contiguous(), self.v_rows, self.head_width)
        q, k, v = split(q, self.heads), split(k, self.kv_heads), split(v, self.kv_heads)
        if self.rope_theta is not None:
            q, k = rotate(q, self.rope_theta), rotate(k, self.rope_theta)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)

        logits = q @ k.transpose(-2, -1) / math.sqrt(self.head_width)
        if self.softcap > 0:  # Gemma 2, 2408.00118
            logits = self.softcap * torch.tanh(logits / self.softcap)
        distance = torch.arange(time)[:, None] - torch.arange(time)[None, :]
        if self.slopes is not None:
            logits = logits - (self.slopes[:, None, None] * distance).to(logits.dtype)
        logits = logits.masked_fill(distance < 0, -math.inf)
        mixed = torch.softmax(logits, dim=-1) @ v
        if self.head_scale is not None:  # NormFormer, 2110.09456
            mixed = mixed * self.head_scale[:, None, None]
        return self.output(mixed.transpose(1, 2).reshape(batch, time, -1))


class FeedForward(Sublayer):
    """Two matrices around an activation; gated kinds have gate and up, in this order, stacked in the first."""

    def __init__(self, spec, block, residual_scale):
        super().__init__(spec, block, "ffn", residual_scale)
        self.kind = spec.ffn
        rows = 2 * spec.ffn_width if spec.ffn in GATED else spec.ffn_width
        self.input = nn.Linear(spec.width, rows, bias=spec.bias)
        self.inner_norm = make_norm(spec.ffn_width, **spec.norm_at("inner")) if spec.inner_norm else nn.Identity()
        self.output = nn.Linear(spec.ffn_width, spec.width, bias=spec.bias)

    def branch(self, x):
        hidden = self.input(x)
        if self.kind in GATED:
            gate, up = hidden.chunk(2, dim=-1)
            hidden = GATED[self.kind](gate) * up
        else:
            hidden = ACTIVATIONS[self.kind](hidden)
        return self.output(self.inner_norm(hidden))


class Block(nn.Module):
    def __init__(self, spec, index):
        super().__init__()
        self.residual_scale = nn.Parameter(torch.zeros(1)) if spec.residual == "rezero" else None
        self.attention = Attention(spec, index, self.residual_scale)
        self.ffn = FeedForward(spec, index, self.residual_scale)

    def forward(self, x):
        return self.ffn(self.attention(x))


class Embedding(nn.Module):
    """Tokens, plus the positions that are added: learned ones or sinusoids."""

    def __init__(self, spec):
        super().__init__()
        self.tokens = nn.Parameter(torch.zeros(spec.vocabulary, spec.width))
        self.positions = nn.Parameter(torch.zeros(spec.context, spec.width)) if spec.position == "learned" else None
        self.fixed = sinusoids(spec.context, spec.width) if spec.position == "sinusoidal" else None
        self.scale = math.sqrt(spec.width) if spec.embedding_scale == "sqrt_width" else 1.0

    def forward(self, tokens):
        x = self.scale * self.tokens[tokens]
        time = tokens.shape[1]
        if self.positions is not None:
            x = x + self.positions[:time]
        if self.fixed is not None:
            x = x + self.fixed[:time].to(x.dtype)
        return x


class Head(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(spec.vocabulary, spec.width))


class Transformer(nn.Module):
    """Tokens [batch, time] to logits [batch, time, vocabulary]."""

    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        self.embedding = Embedding(spec)
        self.embedding_norm = make_norm(spec.width, **spec.norm_at("embedding")) if spec.embedding_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(spec, index) for index in range(spec.layers))
        self.final_norm = make_norm(spec.width, **spec.norm_at("final")) if spec.has_final_norm else nn.Identity()
        self.head = None if spec.tie_embeddings else Head(spec)

    def forward(self, tokens):
        x = self.embedding_norm(self.embedding(tokens))
        for block in self.blocks:
            x = block(x)
        weight = self.embedding.tokens if self.head is None else self.head.weight
        return F.linear(self.final_norm(x), weight)


def loss_of(logits, targets, z_loss=0.0):
    """Mean over the positions with a target of cross-entropy + z_loss * (log Z)^2 (the latter: PaLM, 2204.02311)."""
    logits, targets = logits.flatten(0, 1), targets.flatten()
    known = targets != IGNORED_TARGET
    log_z = torch.logsumexp(logits[known], dim=-1)
    chosen = logits[known].gather(1, targets[known][:, None].long())[:, 0]
    return (log_z - chosen + z_loss * log_z.square()).mean()


def decays(name):
    """Whether weight decay applies: to matrices and embeddings, not to gains, biases and other factors."""
    return name.endswith(".weight") or name.startswith("embedding.")


def parameter_groups(named_parameters, weight_decay):
    named = list(named_parameters)
    return [
        {"params": [p for name, p in named if decays(name)], "weight_decay": weight_decay},
        {"params": [p for name, p in named if not decays(name)], "weight_decay": 0.0},
    ]


def random_parameters(spec, seed):
    """Parameters and buffers, by name, at which every tensor matters: no gain is 1, no bias 0, no activation linear."""
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for name, parameter in Transformer(spec).state_dict().items():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith(("running_mean", "running_variance")):
            values[name] = 0.1 * noise if name.endswith("mean") else 1 + 0.1 * noise.abs()
        elif name.endswith((".gain", ".head_scale")):
            values[name] = parameter + 0.3 * noise
        elif name.endswith((".alpha", ".shift")):
            values[name] = parameter + 0.1 * noise
        elif name.endswith((".branch_scale", ".residual_scale")):
            values[name] = 0.5 + 0.2 * noise
        elif name.endswith(".bias"):
            values[name] = 0.3 * noise
        elif name.startswith("embedding."):
            values[name] = 0.7 * noise
        elif name.endswith(".output.weight"):  # keeps deep streams without norms in range
            values[name] = noise / math.sqrt(parameter.shape[1] * 2 * spec.layers)
        else:
            values[name] = noise / math.sqrt(parameter.shape[1])
    return values
