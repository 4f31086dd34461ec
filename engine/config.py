"""What a checkpoint's `config.json` and `generation_config.json` say, as typed values.

Source of the fields and defaults: transformers, `models/diffusion_gemma/configuration_diffusion_gemma.py` and
`generation_diffusion_gemma.py`. Must not know where the files came from, or weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

from engine.errors import ModelError

LayerKind = Literal["sliding_attention", "full_attention"]
NoiseKind = Literal["uniform", "mask", "hybrid"]
TokenChoice = Literal["sample", "argmax"]
SelfConditioning = Literal["all", "likeliest"]  # tokens whose embeddings a step passes to the next one

ARCHITECTURE = "diffusion_gemma"
KNOWN_ARCHITECTURES = f"{ARCHITECTURE}, qwen2 and Dream (Dream-Coder, DreamOn)"
MOST = {"num_hidden_layers": 1024, "canvas_length": 1 << 14}  # checked before anything is built; others: MOST_OTHER
MOST_OTHER = 1 << 24
MOST_EXPERTS = 1 << 17  # of all layers together; the 26B has 3,840
MOST_NUMBER = 1e12  # of what is not a size
MOST_STEPS = 1 << 16
VARIED_T = (0.6, 0.9)  # least t_min and t_max of varied sampling
WARM_STEPS = 4  # of a canvas that starts from the last one
DEFAULT_ROPE: dict[str, dict[str, Any]] = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}


@dataclass(frozen=True)
class RopeConfig:
    """Rotary embedding of one kind of layer; `kind` is transformers' `rope_type`."""

    kind: Literal["default", "proportional"]
    theta: float
    partial_factor: float = 1.0
    factor: float = 1.0


@dataclass(frozen=True)
class LayerConfig:
    """One transformer layer. Full layers have no value projection: V is the normed raw K."""

    kind: LayerKind
    head_dim: int
    num_kv_heads: int
    rope: RopeConfig

    @property
    def is_sliding(self) -> bool:
        return self.kind == "sliding_attention"

    @property
    def has_value_projection(self) -> bool:
        return self.is_sliding


@dataclass(frozen=True)
class NoiseConfig:
    """The tokens of a canvas where nothing is known yet.

    `uniform`: a random token of the vocabulary (the 26B). `mask`: always `mask_token_id`. `hybrid`: usually
    `mask_token_id`, with probability `uniform_share` a random token (GIDD, arXiv 2503.04482).
    """

    kind: NoiseKind = "uniform"
    mask_token_id: int | None = None
    uniform_share: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in get_args(NoiseKind):
            raise ModelError(f"Unknown kind of noise {self.kind!r}; use uniform, mask or hybrid.")
        if not isinstance(self.uniform_share, float | int) or not 0 <= self.uniform_share <= 1:
            raise ModelError(
                f"config.json has uniform_share {self.uniform_share!r:.60}, which is not from 0 to 1; choose another "
                "model."
            )
        if self.kind != "uniform" and self.mask_token_id is None:
            raise ModelError(f"Noise of kind {self.kind} needs a mask_token_id; add it to config.json.")


@dataclass(frozen=True)
class ModelConfig:
    """The text tower of DiffusionGemma.

    believes_pins_at_once: whether the first step, too, gets the embeddings of pinned tokens as self-conditioning, as
    the models of `train/objective.py` do. The released model gets zeros there.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    layers: tuple[LayerConfig, ...]
    sliding_window: int
    num_experts: int
    experts_per_token: int
    expert_intermediate_size: int
    canvas_length: int = 256
    max_positions: int = 262_144
    norm_eps: float = 1e-6
    logit_softcap: float = 30.0
    bos_token_id: int | None = 2
    pad_token_id: int | None = 0
    noise: NoiseConfig = NoiseConfig()
    family: str = "chat"
    believes_pins_at_once: bool = False

    @staticmethod
    def from_json(config: Mapping[str, Any]) -> ModelConfig:
        """Reads the content of a `config.json`; raises ModelError if it is not a DiffusionGemma."""
        model_type = config.get("model_type")
        if model_type != ARCHITECTURE:
            raise ModelError(
                f"config.json describes a model of type {model_type!r}, but the engine knows only "
                f"{KNOWN_ARCHITECTURES}; choose another model folder."
            )
        text = config.get("text_config")
        if not isinstance(text, Mapping):
            raise ModelError("config.json has no 'text_config'; fetch the model again, the file is incomplete.")
        if text.get("use_bidirectional_attention") == "all":
            raise ModelError(
                "config.json asks for a bidirectional encoder, which is not supported; choose another model."
            )
        if text.get("attention_bias"):
            raise ModelError("config.json asks for attention biases, which are not supported; choose another model.")
        if text.get("hidden_activation", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
            raise ModelError(
                f"config.json asks for the activation {text['hidden_activation']!r}, but this build supports only "
                "gelu_pytorch_tanh; choose another model."
            )
        try:
            return _read_text_config(config, text)
        except KeyError as error:
            raise ModelError(f"config.json lacks the field {error}; fetch the model again.") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"config.json has a wrong field ({error}); fetch the model again.") from error


def _read_text_config(config: Mapping[str, Any], text: Mapping[str, Any]) -> ModelConfig:
    num_layers = _size(text["num_hidden_layers"], "num_hidden_layers")
    kinds = list(text.get("layer_types") or _default_layer_kinds(num_layers))
    if len(kinds) != num_layers or set(kinds) - {"sliding_attention", "full_attention"}:
        raise ModelError(
            "config.json has a 'layer_types' that does not fit 'num_hidden_layers'; fetch the model again."
        )
    kinds[-1] = "full_attention"
    rope = {**DEFAULT_ROPE, **(text.get("rope_parameters") or {})}
    layers = []
    for index, kind in enumerate(kinds):
        overrides = _layer_overrides(text, index, kind)
        layers.append(
            LayerConfig(
                kind=kind,
                head_dim=_size(overrides.get("head_dim", text["head_dim"]), "head_dim"),
                num_kv_heads=_size(
                    overrides.get("num_key_value_heads", text["num_key_value_heads"]), "num_key_value_heads"
                ),
                rope=_read_rope(rope[kind]),
            )
        )
    gesso = config.get("gesso") or {}
    noise = NoiseConfig(**(gesso.get("noise") or {}))
    vocab_size = _size(text["vocab_size"], "vocab_size")
    _token(noise.mask_token_id, "mask_token_id", vocab_size)
    num_heads, num_experts = (
        _size(text["num_attention_heads"], "num_attention_heads"),
        _size(text["num_experts"], "num_experts"),
    )
    experts_per_token = _size(text["top_k_experts"], "top_k_experts")
    if num_experts * num_layers > MOST_EXPERTS:
        raise ModelError(f"config.json has more than {MOST_EXPERTS:,} experts; choose another model.")
    if any(num_heads % layer.num_kv_heads or layer.head_dim % 2 for layer in layers) or experts_per_token > num_experts:
        raise ModelError("config.json has numbers of heads or experts that do not fit together; choose another model.")
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=_size(text["hidden_size"], "hidden_size"),
        intermediate_size=_size(text["intermediate_size"], "intermediate_size"),
        num_heads=num_heads,
        layers=tuple(layers),
        sliding_window=_size(text["sliding_window"], "sliding_window"),
        num_experts=num_experts,
        experts_per_token=experts_per_token,
        expert_intermediate_size=_size(text["moe_intermediate_size"], "moe_intermediate_size"),
        canvas_length=_size(config.get("canvas_length") or 256, "canvas_length"),
        max_positions=_size(text.get("max_position_embeddings") or 262_144, "max_position_embeddings"),
        norm_eps=positive(text.get("rms_norm_eps", 1e-6), "rms_norm_eps"),
        logit_softcap=positive(text.get("final_logit_softcapping") or 30.0, "final_logit_softcapping"),
        bos_token_id=_token(text.get("bos_token_id", 2), "bos_token_id", vocab_size),
        pad_token_id=_token(text.get("pad_token_id", 0), "pad_token_id", vocab_size),
        noise=noise,
        family=str(gesso.get("family", "chat")),
        believes_pins_at_once="noise" in gesso,  # which only this project's training writes
    )


def _size(value: Any, name: str) -> int:
    """A number of layers, channels, tokens or the like; raises ModelError if no model can have so many."""
    size, most = int(value), MOST.get(name, MOST_OTHER)
    if not 0 < size <= most:
        raise ModelError(f"config.json has {name} {size}, which is not between 1 and {most}; choose another model.")
    return size


def positive(value: Any, name: str, most: float = MOST_NUMBER) -> float:
    """A number that is neither 0 nor infinite; raises ValueError for others."""
    number = float(value)
    if not 0 < number <= most:
        raise ValueError(f"{name} {number} is not above 0 and at most {most:g}")
    return number


def _token(value: Any, name: str, vocab_size: int) -> int | None:
    if value is not None and not (type(value) is int and 0 <= value < vocab_size):
        raise ModelError(f"config.json has {name} {value!r}, which is not a token; choose another model.")
    return value


def _default_layer_kinds(num_layers: int) -> list[str]:
    return ["full_attention" if (index + 1) % 6 == 0 else "sliding_attention" for index in range(num_layers)]


def _layer_overrides(text: Mapping[str, Any], index: int, kind: str) -> dict[str, Any]:
    """`per_layer_config` as newer transformers writes it, or the `global_*` fields of the released file."""
    if "per_layer_config" in text:
        return dict((text["per_layer_config"] or {}).get(str(index), {}))
    if kind == "sliding_attention":
        return {}
    overrides: dict[str, Any] = {"head_dim": text.get("global_head_dim", 512)}
    if text.get("num_global_key_value_heads") is not None:
        overrides["num_key_value_heads"] = text["num_global_key_value_heads"]
    return overrides


def _read_rope(parameters: Mapping[str, Any]) -> RopeConfig:
    kind = parameters.get("rope_type", "default")
    if kind not in ("default", "proportional"):
        raise ModelError(
            f"config.json asks for rotary embedding of type {kind!r}, but this build supports only default and "
            "proportional; choose another model."
        )
    partial_factor = positive(parameters.get("partial_rotary_factor", 1.0), "partial_rotary_factor", 1.0)
    if kind == "default" and partial_factor != 1.0:
        raise ModelError(
            "config.json asks for a default rotary embedding of a part of each head; choose another model."
        )
    return RopeConfig(
        kind=kind,
        theta=positive(parameters["rope_theta"], "rope_theta"),
        partial_factor=partial_factor,
        factor=positive(parameters.get("factor", 1.0), "factor"),
    )


class Sampling(Protocol):
    """How a canvas is denoised, in as much as no caller needs to know the model's kind of noise."""

    @property
    def max_steps(self) -> int: ...

    def with_steps(self, max_steps: int | None) -> Sampling:
        """The same with at most `max_steps` steps; None changes nothing."""
        ...

    def varied(self) -> Sampling:
        """The same, but with tokens drawn so that another seed gives another text."""
        ...

    def warm(self) -> Sampling:
        """For a canvas that starts from the text of the last one."""
        ...


@dataclass(frozen=True)
class SamplingConfig:
    """How a canvas is denoised; the defaults are those DiffusionGemma was released with.

    max_steps: most denoising steps per canvas. entropy_bound: nats (arXiv 2505.24857). temperature: goes linearly from
    `t_max` to `t_min` with the remaining steps. A canvas is done when its argmax was the same for `stability_threshold`
    steps and the mean entropy of its positions is below `confidence_threshold` nats. token_choice: `sample` draws each
    accepted token, `argmax` takes the likeliest.
    """

    max_steps: int = 48
    entropy_bound: float = 0.1
    t_min: float = 0.4
    t_max: float = 0.8
    stability_threshold: int = 1
    confidence_threshold: float = 0.005
    token_choice: TokenChoice = "sample"

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ModelError(f"The number of steps must be at least 1, not {self.max_steps}.")
        if self.entropy_bound < 0 or self.t_min < 0 or self.t_max < self.t_min or self.t_max == 0:
            raise ModelError("The sampling settings need entropy_bound >= 0 and 0 <= t_min <= t_max with t_max > 0.")
        if self.token_choice not in get_args(TokenChoice):
            raise ModelError(f"Unknown token choice {self.token_choice!r}; use sample or argmax.")

    @staticmethod
    def from_json(config: Mapping[str, Any]) -> SamplingConfig:
        """Reads the content of a `generation_config.json`; absent or null fields keep their defaults."""
        names = {"max_denoising_steps": "max_steps"}
        names |= {
            name: name for name in ("t_min", "t_max", "stability_threshold", "confidence_threshold", "token_choice")
        }
        values = {names[key]: value for key, value in config.items() if key in names and value is not None}
        bound = (config.get("sampler_config") or {}).get("entropy_bound")
        if bound is not None:
            values["entropy_bound"] = bound
        for name in values.keys() - {"token_choice"}:
            values[name] = _sampling_number(values[name], name, name in ("max_steps", "stability_threshold"))
        return SamplingConfig(**values)

    def with_steps(self, max_steps: int | None) -> SamplingConfig:
        return self if max_steps is None else replace(self, max_steps=max_steps)

    def warm(self) -> SamplingConfig:
        return self.with_steps(min(self.max_steps, WARM_STEPS))

    def varied(self) -> SamplingConfig:
        t_min, t_max = max(self.t_min, VARIED_T[0]), max(self.t_max, VARIED_T[1])
        return replace(self, token_choice="sample", t_min=t_min, t_max=t_max)


def _sampling_number(value: Any, name: str, is_whole: bool) -> float:
    most = MOST_STEPS if is_whole else MOST_NUMBER
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most
    if not is_number or (is_whole and value != int(value)):
        raise ValueError(f"{name} {value!r:.60} is not a number from 0 to {most:g}")
    return int(value) if is_whole else float(value)
