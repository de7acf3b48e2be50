"""Schedulers by short names, on the noise schedule of the model they are taken for."""

from __future__ import annotations

from typing import Any

from guided.errors import CannotDo, UsageError, nearest
from guided.zoo.gate_calls import from_config

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "flow": "FlowMatchEulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Short names of schedulers and their diffusers classes."""
_FOR_FLOW = ("dpm++", "flow", "unipc")


def scheduler_of(present: Any, name: str = "") -> Any:
    """A fresh scheduler: like ``present``, or the named one on the same noise schedule.

    Raises:
        UsageError: no such name; the message lists them.
        CannotDo: a solver of the other kind of model (flow or noise).
    """
    import diffusers

    check_terminal_snr(present.config)
    if not name:
        return from_config(type(present), present.config)
    if name not in SCHEDULERS:
        raise UsageError(
            f"There is no scheduler {name!r}; there are: {', '.join(SCHEDULERS)}.",
            hint=nearest(name, SCHEDULERS),
        )
    kind = getattr(diffusers, SCHEDULERS[name])
    if is_flow(present):
        if name not in _FOR_FLOW:
            raise CannotDo(
                f"This model predicts a flow, which {name!r} cannot take.",
                hint=f"Take one of: {', '.join(_FOR_FLOW)}.",
            )
        flow = {} if name == "flow" else {"prediction_type": "flow_prediction",
                                          "use_flow_sigmas": True}  # fmt: skip
        return from_config(kind, _config(present), **flow)
    if name == "flow":
        raise CannotDo("This model predicts no flow.", hint="Take --scheduler dpm++ or ddim.")
    return from_config(kind, _config(present))


def check_terminal_snr(config: Any) -> None:
    """Refuse zero terminal SNR with epsilon: of pure noise, epsilon says nothing about the image.

    Source: Lin et al. 2023, section 3.1.

    Raises:
        CannotDo: that pair of settings.
    """
    if config.get("rescale_betas_zero_snr") and config.get("prediction_type") == "epsilon":
        raise CannotDo(
            "The scheduler has zero terminal SNR (rescale_betas_zero_snr) with epsilon prediction, "
            "which divides by zero at its first step.",
            hint="In scheduler_config.json set prediction_type to v_prediction if the model was "
            "trained so, else rescale_betas_zero_snr to false.",
        )


def _config(scheduler: Any) -> dict[str, Any]:
    """The settings to hand over to another scheduler."""
    return {**scheduler.config, "skip_prk_steps": True}


def is_flow(scheduler: Any) -> bool:
    """Whether the scheduler's model predicts a flow."""
    if type(scheduler).__name__ == SCHEDULERS["flow"]:
        return True
    return bool(scheduler.config.get("prediction_type") == "flow_prediction")
