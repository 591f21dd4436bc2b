"""The model that Ballast trains, written in PyTorch from the papers: an independent reference for its numbers.

Parameters have the names of Ballast's files, so `load_state_dict` takes what `params.safetensors` holds. Everything
works in float32 and in float64 (`model.double()`).
"""

import math
from dataclasses import dataclass

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
    norm: str = "layernorm"
    placement: str = "pre"
    eps: float = 1e-5
    norm_gain: bool = True
    norm_bias: str = "auto"
    final_norm: str = "auto"
    position: str = "learned"
    rope_theta: float = 10000.0
    tie_embeddings: bool = True
    bias: bool = False

    @property
    def head_width(self):
        return self.width // self.heads

    @property
    def has_norm_bias(self):
        return self.norm == "layernorm" and (self.bias if self.norm_bias == "auto" else self.norm_bias == "on")

    @property
    def has_final_norm(self):
        return self.placement == "pre" if self.final_norm == "auto" else self.final_norm == "on"

    def as_config(self):
        """The `model` object that says this to Ballast."""
        return {
            "layers": self.layers,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "width": self.width,
            "context": self.context,
            "ffn": {"kind": self.ffn, "width": self.ffn_width},
            "norm": {
                "kind": self.norm,
                "placement": self.placement,
                "eps": self.eps,
                "gain": self.norm_gain,
                "bias": self.norm_bias,
            },
            "final_norm": self.final_norm,
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
        return ModelSpec(
            vocabulary=vocabulary,
            layers=model["layers"],
            heads=model["heads"],
            kv_heads=model["kv_heads"],
            width=model["width"],
            context=model["context"],
            ffn=model["ffn"]["kind"],
            ffn_width=model["ffn"]["width"],
            norm=model["norm"]["kind"],
            placement=model["norm"]["placement"],
            eps=model["norm"]["eps"],
            norm_gain=model["norm"]["gain"],
            norm_bias=model["norm"]["bias"],
            final_norm=model["final_norm"],
            position=model["position"],
            rope_theta=model["rope"]["theta"],
            tie_embeddings=model["tie_embeddings"],
            bias=model["bias"],
        )


class LayerNorm(nn.Module):
    """Ba et al., 1607.06450, equation 4, with the biased variance."""

    def __init__(self, spec):
        super().__init__()
        self.eps = spec.eps
        self.gain = nn.Parameter(torch.ones(spec.width)) if spec.norm_gain else None
        self.bias = nn.Parameter(torch.zeros(spec.width)) if spec.has_norm_bias else None

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.gain, self.bias, self.eps)


class RMSNorm(nn.Module):
    """Zhang & Sennrich, 1910.07467, equation 4, with eps added to the mean square."""

    def __init__(self, spec):
        super().__init__()
        self.eps = spec.eps
        self.gain = nn.Parameter(torch.ones(spec.width)) if spec.norm_gain else None

    def forward(self, x):
        y = x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)
        return y if self.gain is None else self.gain * y


def make_norm(spec):
    return {"layernorm": LayerNorm, "rmsnorm": RMSNorm, "none": lambda spec: nn.Identity()}[spec.norm](spec)


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
    """One branch of a block, with its norm and its place beside the residual stream."""

    def __init__(self, spec):
        super().__init__()
        self.placement = spec.placement
        if spec.placement == "pre":
            self.pre_norm = make_norm(spec)
        elif spec.placement == "post":
            self.post_norm = make_norm(spec)

    def branch(self, x):
        raise NotImplementedError

    def forward(self, x):
        if self.placement == "pre":  # Wang et al., 1906.01787; Xiong et al., 2002.04745
            return x + self.branch(self.pre_norm(x))
        if self.placement == "post":  # Vaswani et al. 2017, section 3.1
            return self.post_norm(x + self.branch(x))
        return x + self.branch(x)


class Attention(Sublayer):
    """Causal self-attention (Vaswani et al. 2017, equation 1), grouped as in Ainslie et al., 2305.13245.

    A row of the packed projection is [q of all heads | k of all kv heads | v of all kv heads].
    """

    def __init__(self, spec):
        super().__init__(spec)
        self.heads, self.kv_heads, self.head_width = spec.heads, spec.kv_heads, spec.head_width
        self.rope_theta = spec.rope_theta if spec.position == "rope" else None
        self.slopes = alibi_slopes(spec.heads) if spec.position == "alibi" else None
        self.qkv = nn.Linear(spec.width, (spec.heads + 2 * spec.kv_heads) * spec.head_width, bias=spec.bias)
        self.output = nn.Linear(spec.width, spec.width, bias=spec.bias)

    def branch(self, x):
        batch, time, _ = x.shape

        def split(packed, heads):  # [batch, heads, time, head_width]
            return packed.view(batch, time, heads, self.head_width).transpose(1, 2)

        sizes = [count * self.head_width for count in (self.heads, self.kv_heads, self.kv_heads)]
        q, k, v = self.qkv(x).split(sizes, dim=-1)
        q, k, v = split(q, self.heads), split(k, self.kv_heads), split(v, self.kv_heads)
        if self.rope_theta is not None:
            q, k = rotate(q, self.rope_theta), rotate(k, self.rope_theta)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)

        logits = q @ k.transpose(-2, -1) / math.sqrt(self.head_width)
        distance = torch.arange(time)[:, None] - torch.arange(time)[None, :]
        if self.slopes is not None:
            logits = logits - (self.slopes[:, None, None] * distance).to(logits.dtype)
        logits = logits.masked_fill(distance < 0, -math.inf)
        mixed = torch.softmax(logits, dim=-1) @ v
        return self.output(mixed.transpose(1, 2).reshape(batch, time, -1))


class FeedForward(Sublayer):
    """Two matrices around an activation; gated kinds have gate and up, in this order, stacked in the first."""

    def __init__(self, spec):
        super().__init__(spec)
        self.kind = spec.ffn
        rows = 2 * spec.ffn_width if spec.ffn in GATED else spec.ffn_width
        self.input = nn.Linear(spec.width, rows, bias=spec.bias)
        self.output = nn.Linear(spec.ffn_width, spec.width, bias=spec.bias)

    def branch(self, x):
        hidden = self.input(x)
        if self.kind in GATED:
            gate, up = hidden.chunk(2, dim=-1)
            return self.output(GATED[self.kind](gate) * up)
        return self.output(ACTIVATIONS[self.kind](hidden))


class Block(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.attention = Attention(spec)
        self.ffn = FeedForward(spec)

    def forward(self, x):
        return self.ffn(self.attention(x))


class Embedding(nn.Module):
    """Tokens, plus the positions that are added: learned ones or sinusoids."""

    def __init__(self, spec):
        super().__init__()
        self.tokens = nn.Parameter(torch.zeros(spec.vocabulary, spec.width))
        self.positions = nn.Parameter(torch.zeros(spec.context, spec.width)) if spec.position == "learned" else None
        self.fixed = sinusoids(spec.context, spec.width) if spec.position == "sinusoidal" else None

    def forward(self, tokens):
        x = self.tokens[tokens]
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
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self.final_norm = make_norm(spec) if spec.has_final_norm else nn.Identity()
        self.head = None if spec.tie_embeddings else Head(spec)

    def forward(self, tokens):
        x = self.embedding(tokens)
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
    """Whether weight decay applies: to matrices and embeddings, not to gains and biases."""
    return not name.endswith((".gain", ".bias"))


def parameter_groups(named_parameters, weight_decay):
    named = list(named_parameters)
    return [
        {"params": [p for name, p in named if decays(name)], "weight_decay": weight_decay},
        {"params": [p for name, p in named if not decays(name)], "weight_decay": 0.0},
    ]


def random_parameters(spec, seed):
    """Parameters, by name, at which every tensor matters: no gain is 1, no bias 0, and no activation near linear."""
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for name, parameter in Transformer(spec).named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith(".gain"):
            values[name] = 1 + 0.3 * noise
        elif name.endswith(".bias"):
            values[name] = 0.3 * noise
        elif name.startswith("embedding."):
            values[name] = 0.7 * noise
        elif name.endswith(".output.weight"):  # keeps deep streams without norms in range
            values[name] = noise / math.sqrt(parameter.shape[1] * 2 * spec.layers)
        else:
            values[name] = noise / math.sqrt(parameter.shape[1])
    return values
