"""Muon compared with PyTorch's, and the whole update: stepping, saving, loading."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from engine.config import ModelConfig
from engine.models.diffusion_gemma import DiffusionGemma
from train.layout import LayoutConfig
from train.optimizers import Muon, Optimizers, initialize, orthogonalized
from train.recipe import RunConfig, _config_json

SHAPES = [(24, 16), (16, 24), (24, 16), (16, 16), (16, 24), (48, 16)]
MODEL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "full_every": 2,
    "sliding_window": 32,
    "num_experts": 1,
    "top_k_experts": 1,
    "moe_intermediate_size": 8,
    "noise": "hybrid",
    "uniform_share": 0.1,
}


@pytest.fixture
def model() -> DiffusionGemma:
    config = ModelConfig.from_json(_config_json(MODEL, 64, LayoutConfig()))
    made = DiffusionGemma(config)
    initialize(made, torch.Generator().manual_seed(0))
    return made.to(torch.bfloat16)


def matrices() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).mul(0.1).requires_grad_() for shape in SHAPES]


def give_gradients(model: DiffusionGemma, seed: int, without: str = "none of them") -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if without not in name:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def pytorchs(ours: list[torch.Tensor]) -> torch.optim.Muon:
    return torch.optim.Muon(ours, lr=0.02, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")


def test_singular_values_come_near_one() -> None:
    some = torch.randn(3, 20, 60, generator=torch.Generator().manual_seed(0))
    some[2] *= 1e-3
    for shaped in (some, some.mT):
        found = orthogonalized(shaped)
        assert found.shape == shaped.shape
        values = torch.linalg.svdvals(found.float())
        assert values.min() > 0.4 and values.max() < 1.3
    assert not orthogonalized(torch.zeros(1, 4, 4)).any()


def test_muon_steps_as_pytorchs_does() -> None:
    ours, theirs = matrices(), matrices()
    before = [matrix.detach().clone() for matrix in ours]
    mine, reference = Muon(ours, 0.02, 0.05), pytorchs(theirs)
    generator = torch.Generator().manual_seed(2)
    for step in range(5):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            one.grad = None if (step, number) == (2, 1) else torch.randn(one.shape, generator=generator)
            other.grad = None if one.grad is None else one.grad.clone()
        rate = 0.02 / (step + 1)
        mine.param_groups[0]["lr"] = reference.param_groups[0]["lr"] = rate
        mine.step()
        reference.step()
    for one, other, start in zip(ours, theirs, before, strict=True):
        assert (one - other).norm() < 0.01 * (other - start).norm()


def test_muon_continues_from_the_state_of_pytorchs() -> None:
    ours, theirs = matrices(), matrices()
    reference = pytorchs(theirs)
    generator = torch.Generator().manual_seed(3)
    for matrix in theirs:
        matrix.grad = torch.randn(matrix.shape, generator=generator)
    reference.step()
    mine = Muon(ours, 0.02, 0.05)
    with torch.no_grad():
        for one, other in zip(ours, theirs, strict=True):
            one.copy_(other)
    mine.load_state_dict(deepcopy(reference.state_dict()))
    for one, other in zip(ours, theirs, strict=True):
        one.grad = torch.randn(one.shape, generator=generator)
        other.grad = one.grad.clone()
    before = [matrix.detach().clone() for matrix in ours]
    mine.step()
    reference.step()
    for one, other, start in zip(ours, theirs, before, strict=True):
        assert (one - other).norm() < 0.01 * (other - start).norm()


def test_muon_has_the_matrices_of_the_layers_and_adam_the_rest(model: DiffusionGemma) -> None:
    optimizers = Optimizers(model, RunConfig())
    names = {id(master): name for name, master in optimizers.masters.items()}
    muon, adam = ([names[id(p)] for p in one.param_groups[0]["params"]] for one in optimizers.optimizers)
    assert sorted(muon + adam) == sorted(names.values())
    assert {name.rsplit(".", 2)[-2] for name in muon} == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
    assert all(optimizers.masters[name].dim() == 2 for name in muon)
    for name in ("embed_tokens.weight", "layers.0.router.proj.weight", "layers.0.experts.gate_up_proj"):
        assert name in adam


def test_a_step_moves_the_masters_and_the_working_copy_follows(model: DiffusionGemma) -> None:
    optimizers = Optimizers(model, RunConfig())
    before = {name: master.detach().clone() for name, master in optimizers.masters.items()}
    give_gradients(model, 0, without="self_conditioning")
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    expected = sum(float(gradient.float().square().sum()) for gradient in gradients) ** 0.5
    norm, numbers = optimizers.step(1.0, [3.0, 0.0])
    assert float(norm) == pytest.approx(expected, rel=1e-4) and numbers == [3.0, 0.0]
    for name, working in model.named_parameters():
        master = optimizers.masters[name]
        assert torch.equal(working, master.bfloat16()) and working.grad is None
        assert torch.equal(master, before[name]) == ("self_conditioning" in name), name


def test_a_missing_gradient_is_not_taken_from_the_last_step(model: DiffusionGemma) -> None:
    optimizers = Optimizers(model, RunConfig())
    give_gradients(model, 0)
    optimizers.step(1.0, [])
    before = {name: master.detach().clone() for name, master in optimizers.masters.items()}
    give_gradients(model, 1, without="self_conditioning")
    optimizers.step(1.0, [])
    for name, master in optimizers.masters.items():
        assert torch.equal(master, before[name]) == ("self_conditioning" in name), name


def test_a_loaded_state_continues_as_the_saved_one(model: DiffusionGemma) -> None:
    """Also a state written by PyTorch's Muon; settings come from the recipe."""
    run = RunConfig(weight_decay=0.3)
    saved, other = Optimizers(model, RunConfig(weight_decay=0.0)), deepcopy(model)
    give_gradients(model, 0)
    saved.step(1.0, [])
    state = deepcopy(saved.state())
    settings = pytorchs(matrices()).state_dict()["param_groups"][0]
    state["optimizers"][0]["param_groups"][0] = settings | {
        "params": state["optimizers"][0]["param_groups"][0]["params"]
    }
    loaded = Optimizers(other, run)
    loaded.load(state)
    assert loaded.optimizers[0].param_groups[0]["weight_decay"] == 0.3
    saved.optimizers[0].param_groups[0]["weight_decay"] = 0.3
    for optimizers, working in ((saved, model), (loaded, other)):
        give_gradients(working, 1)
        optimizers.step(0.5, [])
    for name, master in saved.masters.items():
        assert torch.equal(master, loaded.masters[name]), name
        assert torch.equal(model.get_parameter(name), other.get_parameter(name))
