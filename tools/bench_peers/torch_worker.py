"""The model of a config in PyTorch, as a practised user writes it for speed, and its training steps.

    torch_worker.py CONFIG.json THREADS VOCABULARY [--compile]

prints a line of JSON when ready, then answers each line of its input, a number of steps, with the times of that many
steps and the memory so far. The code follows nanoGPT's model: fused attention, one matrix for queries, keys and values,
tied embeddings, and the optimizer fused into one kernel.
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    def __init__(self, width, bias, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps = eps

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    def __init__(self, width, heads, bias):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(self, x):
        batch, time, width = x.shape
        q, k, v = (
            part.view(batch, time, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).split(width, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(batch, time, width))


class FeedForward(nn.Module):
    def __init__(self, width, hidden, bias, approximate):
        super().__init__()
        self.input = nn.Linear(width, hidden, bias=bias)
        self.output = nn.Linear(hidden, width, bias=bias)
        self.approximate = approximate

    def forward(self, x):
        return self.output(F.gelu(self.input(x), approximate=self.approximate))


class Block(nn.Module):
    def __init__(self, model):
        super().__init__()
        width, bias, eps = model["width"], model["bias"], model["norm"]["eps"]
        approximate = {"gelu": "none", "gelu_tanh": "tanh"}[model["ffn"]["kind"]]
        self.attention_norm = Norm(width, bias, eps)
        self.attention = Attention(width, model["heads"], bias)
        self.ffn_norm = Norm(width, bias, eps)
        self.ffn = FeedForward(width, model["ffn"]["width"], bias, approximate)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.ffn(self.ffn_norm(x))


class GPT(nn.Module):
    def __init__(self, model, vocabulary):
        super().__init__()
        width = model["width"]
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(model["context"], width)
        self.blocks = nn.ModuleList(Block(model) for _ in range(model["layers"]))
        self.norm = Norm(width, model["bias"], model["norm"]["eps"])
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = math.sqrt(2 * model["layers"]) if name.endswith("output.weight") else 1
                nn.init.normal_(parameter, std=0.02 / scale)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens, targets):
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def check(config):
    """The models that this file knows."""
    model = config["model"]
    expected = {"position": "learned", "tie_embeddings": True, "dropout": 0, "final_norm": "on"}
    expected |= {"kv_heads": model["heads"]}
    wrong = [f"model.{key} is {model[key]}" for key, value in expected.items() if model[key] != value]
    if (model["norm"]["placement"], model["norm"]["kind"]) != ("pre", "layernorm"):
        wrong.append("model.norm is not a pre-norm layernorm")
    if config["optimizer"]["kind"] != "adamw" or config["train"]["micro_batch"] != config["train"]["batch"]:
        wrong.append("not AdamW on whole batches")
    if wrong:
        sys.exit("torch_worker: this model is not written here: " + "; ".join(wrong))


def peak_bytes():
    """The most memory this process has had."""
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def main():
    with open(sys.argv[1]) as file:
        config = json.load(file)
    threads, vocabulary = int(sys.argv[2]), int(sys.argv[3])
    check(config)
    torch.set_num_threads(threads)
    torch.manual_seed(1)

    model = GPT(config["model"], vocabulary)
    wanted = config["optimizer"]
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() == 2], "weight_decay": wanted["weight_decay"]},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=wanted["lr"],
        betas=tuple(wanted["betas"]),
        eps=wanted["eps"],
        fused=True,
    )
    shape = (config["train"]["batch"], config["model"]["context"])
    batches = [(torch.randint(vocabulary, shape), torch.randint(vocabulary, shape)) for _ in range(8)]
    loss_of = torch.compile(model) if "--compile" in sys.argv else model

    def step(number):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(*batches[number % len(batches)])
        loss.backward()
        if wanted["clip"] > 0:
            torch.nn.utils.clip_grad_norm_(parameters, wanted["clip"])
        optimizer.step()

    for number in range(3):
        step(number)
    facts = {"parameters": sum(p.numel() for p in parameters), "version": torch.__version__}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        seconds = []
        for number in range(int(line)):
            start = time.perf_counter()
            step(number)
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}), flush=True)


if __name__ == "__main__":
    main()
