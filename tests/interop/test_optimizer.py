"""Optimizer steps on given gradients, and learning-rate schedules, against PyTorch's and against closed forms."""

import math

import pytest
import torch
from reference import ModelSpec, Transformer, decays, parameter_groups, random_parameters

STEPS = 8
LR = 0.1  # large, so that the updates and not the parameters' rounding dominate
SPEC = ModelSpec(layers=1, bias=True)

# Error allowed in the sum of all updates, relative to it, and one rounding of each parameter a step.
UPDATE_TOLERANCE = 2e-6
ROUNDING = 2.0**-24


def gradients_of_every_size(step):
    """Gradients over twelve orders of magnitude, and exact zeros."""
    generator = torch.Generator().manual_seed(100 + step)
    gradients = {}
    for name, parameter in Transformer(SPEC).named_parameters():
        value = torch.randn(parameter.shape, generator=generator)
        value *= 10 ** (12 * torch.rand(parameter.shape, generator=generator) - 10)
        value[torch.rand(parameter.shape, generator=generator) < 0.1] = 0
        gradients[name] = value
    return gradients


def warm_up(step):
    return min(step / 3, 1.0)


def run_ours(probe, optimizer, parameters, gradients):
    probe.write_config(
        {
            "data": {"path": ".", "format": "bin", "vocab_size": SPEC.vocabulary},
            "model": SPEC.as_config(),
            "optimizer": {"lr": LR} | optimizer,
            "schedule": {"kind": "constant", "warmup": 3},
            "train": {"steps": STEPS, "batch": 1},
        }
    )
    probe.write_tensors("params", parameters)
    probe.write_tensors(
        "gradients", {f"{i + 1}/{name}": g for i, step in enumerate(gradients) for name, g in step.items()}
    )
    return probe("update")["trained"]


def run_torch(make_optimizer, parameters, gradients, decay_before_step=0.0):
    """`decay_before_step`: what is taken off decaying parameters at each step, per unit of the schedule's factor."""
    model = Transformer(SPEC).double()
    model.load_state_dict(parameters)
    optimizer = make_optimizer(model.named_parameters())
    for step, step_gradients in enumerate(gradients, start=1):
        for group in optimizer.param_groups:
            group["lr"] = LR * warm_up(step)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.grad = step_gradients[name].double()
                if decays(name):
                    parameter.mul_(1 - decay_before_step * warm_up(step))
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


def compare(probe, config, make_optimizer, decay_before_step=0.0):
    parameters = random_parameters(SPEC, seed=1)
    gradients = [gradients_of_every_size(step) for step in range(STEPS)]
    ours = run_ours(probe, config, parameters, gradients)
    theirs = run_torch(make_optimizer, parameters, gradients, decay_before_step)
    assert ours.keys() == theirs.keys()
    for name, exact in theirs.items():
        error = (ours[name].double() - exact).norm().item()
        change = (exact - parameters[name].double()).norm().item()
        size = max(exact.norm().item(), parameters[name].norm().item())
        assert error <= UPDATE_TOLERANCE * change + STEPS * ROUNDING * size, (
            f"{name}: error {error:.2e}, {error / change:.2e} of its change"
        )


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.9, 0.999), (0.0, 0.95), (0.99, 0.0)])
def test_adamw(probe, betas, weight_decay):
    compare(
        probe,
        {"kind": "adamw", "betas": list(betas), "eps": 1e-8, "weight_decay": weight_decay},
        lambda named: torch.optim.AdamW(parameter_groups(named, weight_decay), betas=betas, eps=1e-8),
    )


@pytest.mark.parametrize("eps", [1e-12, 1e-3])
def test_adamw_eps_stands_beside_the_root(probe, eps):
    compare(
        probe,
        {"kind": "adamw", "betas": [0.9, 0.99], "eps": eps, "weight_decay": 0.0},
        lambda named: torch.optim.AdamW(parameter_groups(named, 0.0), betas=(0.9, 0.99), eps=eps),
    )


def test_adamw_independent_decay_ignores_the_learning_rate(probe):
    """A coupled decay of weight_decay / lr is, at the learning rate lr, the independent decay."""
    weight_decay = 0.05
    compare(
        probe,
        {"kind": "adamw", "betas": [0.9, 0.99], "weight_decay": weight_decay, "decay": "independent"},
        lambda named: torch.optim.AdamW(parameter_groups(named, weight_decay / LR), betas=(0.9, 0.99)),
    )


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize("momentum,nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd(probe, momentum, nesterov, weight_decay):
    """PyTorch's SGD puts the decay into the gradient; ours is decoupled, as in AdamW."""
    compare(
        probe,
        {"kind": "sgd", "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay},
        lambda named: torch.optim.SGD([p for _, p in named], lr=LR, momentum=momentum, nesterov=nesterov),
        decay_before_step=LR * weight_decay,
    )


def rates(probe, steps, lr, schedule):
    probe.write_config({"optimizer": {"lr": lr}, "schedule": schedule, "train": {"steps": steps}})
    return [float(line) for line in probe.text("schedule").split()]


def torch_rates(steps, lr, warmup, make_scheduler):
    """Linear warm-up to `lr`, then one of PyTorch's schedulers, whose step 0 is our step `warmup`."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make_scheduler(optimizer)
    after = []
    for _ in range(steps - warmup + 1):
        after.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return [lr * step / warmup for step in range(1, warmup)] + after[0 if warmup else 1 :]


@pytest.mark.parametrize("steps,warmup", [(200, 20), (200, 0), (200, 1), (7, 7), (2, 1)])
def test_cosine_and_linear(probe, steps, warmup):
    lr, final = 3e-3, 2e-4
    span = max(steps - warmup, 1)
    assert rates(probe, steps, lr, {"kind": "cosine", "warmup": warmup, "final_lr": final}) == pytest.approx(
        torch_rates(
            steps, lr, warmup, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=span, eta_min=final)
        ),
        rel=1e-9,
    )
    assert rates(probe, steps, lr, {"kind": "linear", "warmup": warmup, "final_lr": final}) == pytest.approx(
        torch_rates(
            steps,
            lr,
            warmup,
            lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=final / lr, total_iters=span),
        ),
        rel=1e-9,
    )


def test_constant_wsd_and_inverse_sqrt(probe):
    steps, lr, final, warmup = 100, 1e-2, 1e-3, 10
    up = [lr * step / warmup for step in range(1, warmup)]
    assert rates(probe, steps, lr, {"kind": "constant", "warmup": warmup}) == pytest.approx(
        up + [lr] * (steps - warmup + 1)
    )
    wsd = {"kind": "wsd", "warmup": warmup, "final_lr": final, "decay_fraction": 0.3}
    assert rates(probe, steps, lr, wsd) == pytest.approx(
        up + [lr] * 61 + [lr + (final - lr) * (step - 70) / 30 for step in range(71, 101)]
    )
    assert rates(probe, steps, lr, {"kind": "inverse_sqrt", "warmup": warmup}) == pytest.approx(
        up + [lr * math.sqrt(warmup / step) for step in range(warmup, 101)]
    )


def test_a_run_shorter_than_its_warm_up_ends_within_it(probe):
    assert rates(probe, 5, 1e-3, {"kind": "cosine", "warmup": 10}) == pytest.approx([1e-4 * i for i in range(1, 6)])
