"""The methods: their losses, taps and weights, and the source of each value.

`default` weights come from one procedure (`docs/weights.md`): gradient shares measured at the last weight
that all terms share, then a search over a few multiples on scenes that no reported figure uses. They
carry over between networks and data sets as far as a term's share stays put: `docs/weights.md` has it
measured. It does not for channel-wise distillation, whose share grows about as the square root of the
number of channels, nor for DIST, whose share falls with the number of classes. A weight marked `assumed`
has not been through it: check its share in the report. A `paper` weight belongs only to the released form beside it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from segdistill.distillation.method import Method, TermSpec, build_terms, override
from segdistill.names import unknown

Preset = dict[str, TermSpec]


def supervised(preset: str) -> Preset:
    """Plain training: cross-entropy, and 0.4 of it on the auxiliary head (Zhao et al., 2017).

    The auxiliary head is PSPNet's (https://arxiv.org/abs/1612.01105). A second, coarser head (ICNet)
    also gets 0.4 of it, as in the ports of mmsegmentation and GluonCV.
    """
    return {
        "cross_entropy": TermSpec("cross_entropy", 1.0, "logits", source="published"),
        "cross_entropy_aux": TermSpec(
            "cross_entropy", 0.4, "aux", source="released code", optional=True
        ),
        "cross_entropy_aux_coarse": TermSpec(
            "cross_entropy", 0.4, "aux_coarse", source="released code", optional=True
        ),
    }


def kd(preset: str) -> Preset:
    """Pixel-wise distillation of the class probabilities (Hinton et al., 2015; Liu et al., 2019).

    https://arxiv.org/abs/1503.02531, https://arxiv.org/abs/1903.04197
    """
    if preset == "paper":
        pixel = TermSpec("pixelwise", 10.0, options={"form": "skd"}, source="released code")
    else:
        pixel = TermSpec("pixelwise", 1.0, options={"temperature": 1.0}, source="tuned")
    return {**supervised(preset), "pixelwise": pixel}


def cwd(preset: str) -> Preset:
    """Channel-wise distillation on the logits (Shu et al., ICCV 2021).

    https://arxiv.org/abs/2011.13256
    """
    if preset == "paper":
        options = {"form": "torchdistiller", "temperature": 4.0}
        channel = TermSpec("channelwise", 3.0, options=options, source="released code")
    else:
        channel = TermSpec("channelwise", 3.0, options={"temperature": 4.0}, source="released code")
    return {**supervised(preset), "channelwise": channel}


def cwd_features(preset: str) -> Preset:
    """Channel-wise distillation on the features (Shu et al., ICCV 2021), through a trained projection.

    https://arxiv.org/abs/2011.13256

    The `paper` preset is CIRKD's comparison: on features and logits, with pixel-wise distillation and a
    critic. Its 50 on the features, of a mean over channels, would be 1.9 at 512 channels as `default` sums.
    """
    if preset == "paper":
        options = {"form": "cirkd", "temperature": 4.0}
        on_features, on_logits = (
            TermSpec("channelwise", weight, on, options, "released code")
            for on, weight in (("features_released", 50.0), ("logits", 3.0))
        )
        return {
            **supervised(preset),
            "pixelwise": TermSpec(
                "pixelwise", 1.0, options={"form": "cirkd"}, source="released code"
            ),
            "channelwise": on_logits,
            "channelwise_features": on_features,
            "holistic": _holistic("cirkd", 0.001),
        }
    feature = TermSpec("channelwise", 2.0, "features", {"temperature": 4.0}, "assumed")
    return {**supervised(preset), "channelwise_features": feature}


def skd(preset: str) -> Preset:
    """Structured distillation (Liu et al., CVPR 2019): pixel-wise, pair-wise and, in `paper`, holistic.

    https://arxiv.org/abs/1903.04197

    The critic of the holistic term is trained alongside the student; `default` has none.
    """
    if preset == "paper":
        pair = TermSpec(
            "pairwise", 0.5, "features_released", {"form": "skd"}, source="released code"
        )
        return {**kd(preset), "pairwise": pair, "holistic": _holistic("skd", 0.1)}
    return {**kd(preset), "pairwise": TermSpec("pairwise", 1.0, "features", source="tuned")}


def ifvd(preset: str) -> Preset:
    """Intra-class feature variation (Wang et al., ECCV 2020), with the terms it is trained with.

    https://www.ecva.net/papers/eccv_2020/papers_ECCV/papers/123520341.pdf

    These are the pixel-wise and, in `paper`, the holistic term; `default` has no critic.
    """
    if preset == "paper":
        pixel = TermSpec("pixelwise", 10.0, options={"form": "ifvd"}, source="released code")
        variation = TermSpec(
            "intra_class", 200.0, "features_released", {"form": "ifvd"}, source="released code"
        )
        critic = {"holistic": _holistic("ifvd", 0.001)}
    else:
        pixel = kd(preset)["pixelwise"]
        variation = TermSpec("intra_class", 1.0, "features", source="assumed")
        critic = {}
    return {**supervised(preset), "pixelwise": pixel, "intra_class": variation, **critic}


def at(preset: str) -> Preset:
    """Attention transfer (Zagoruyko & Komodakis, ICLR 2017), on the last features.

    https://arxiv.org/abs/1612.03928

    The `paper` preset is CIRKD's comparison, whose script adds pixel-wise distillation.
    """
    if preset == "paper":
        return {
            **supervised(preset),
            "pixelwise": TermSpec(
                "pixelwise", 1.0, options={"form": "cirkd"}, source="released code"
            ),
            "attention": TermSpec(
                "attention", 1e4, "features_released", {"form": "cirkd"}, source="released code"
            ),
        }
    return {
        **supervised(preset),
        "attention": TermSpec("attention", 1.0, "features", source="assumed"),
    }


def dist(preset: str) -> Preset:
    """Correlation of the class probabilities (DIST, Huang et al., NeurIPS 2022), on the logits.

    https://arxiv.org/abs/2205.10536

    The `paper` preset adds 0.4 of it on the auxiliary head, as released, where the student has one; the
    teacher then needs one as well.
    """
    if preset == "paper":
        on_logits, on_aux = (
            TermSpec("dist", weight, on, {"form": "dist"}, "released code", optional=on == "aux")
            for on, weight in (("logits", 1.0), ("aux", 0.4))
        )
        return {**supervised(preset), "dist": on_logits, "dist_aux": on_aux}
    return {**supervised(preset), "dist": TermSpec("dist", 1.0, source="assumed")}


def cirkd(preset: str) -> Preset:
    """Cross-image relations (CIRKD, Yang et al., CVPR 2022) of the mini-batch, and pixel-wise distillation.

    https://arxiv.org/abs/2204.06986

    The relations to its memory of pixels and regions (weight 0.1 each) are not included: neither preset is
    the complete published method.
    """
    if preset == "paper":
        pixel = TermSpec("pixelwise", 1.0, options={"form": "cirkd"}, source="released code")
        relation = TermSpec(
            "image_relation", 1.0, "features_released", {"form": "cirkd"}, source="released code"
        )
    else:
        pixel = kd(preset)["pixelwise"]
        relation = TermSpec("image_relation", 1.0, "features", source="assumed")
    return {**supervised(preset), "pixelwise": pixel, "image_relation": relation}


def hint(preset: str) -> Preset:
    """Feature regression (FitNets, Romero et al., ICLR 2015), on the last features.

    https://arxiv.org/abs/1412.6550

    The `paper` preset is CIRKD's comparison: no bias, the teacher's features as they are, weight 10.
    """
    if preset == "paper":
        term = TermSpec("hint", 10.0, "features_released", {"form": "cirkd"}, "released code")
    else:
        term = TermSpec("hint", 2.0, "features", source="assumed")
    return {**supervised(preset), "hint": term}


def bpkd(preset: str) -> Preset:
    """Boundary-privileged distillation (BPKD, Liu et al., WACV 2024): edges and bodies of classes, apart.

    https://arxiv.org/abs/2306.08075

    Its training code was never released: `paper` follows a third-party implementation.
    """
    edge, body = (50.0, 20.0) if preset == "paper" else (2.0, 1.0)
    form = {"form": "paper"} if preset == "paper" else {}
    return {
        **supervised(preset),
        "boundary": TermSpec("boundary", edge, options={"part": "edge", **form}, source="assumed"),
        "body": TermSpec("boundary", body, options={"part": "body", **form}, source="assumed"),
    }


def idd(preset: str) -> Preset:
    """Inter-class distance distillation (Zhang et al., IJCAI 2022), eq. (6): SKD + CWD + IDDM + PIDM.

    https://arxiv.org/abs/2205.03650

    The weights of the last two were never published: `paper` assumes them, `default` tunes them.
    """
    if preset == "paper":
        on = "features_released"
        distance = TermSpec("inter_class", 0.1, on, {"form": "paper"}, source="assumed")
        position = TermSpec("position", 1.0, on, {"form": "paper"}, source="assumed")
    else:
        distance = TermSpec("inter_class", 1.0, "features", source="tuned")
        position = TermSpec("position", 1.0, "features", source="tuned")
    return {
        **skd(preset),
        "channelwise": cwd(preset)["channelwise"],
        "inter_class": distance,
        "position": position,
    }


def _holistic(form: str, weight: float) -> TermSpec:
    return TermSpec("holistic", weight, options={"form": form}, source="released code")


METHODS: dict[str, Callable[[str], Preset]] = {
    "supervised": supervised,
    "kd": kd,
    "cwd": cwd,
    "cwd_features": cwd_features,
    "skd": skd,
    "ifvd": ifvd,
    "at": at,
    "dist": dist,
    "cirkd": cirkd,
    "hint": hint,
    "bpkd": bpkd,
    "idd": idd,
}
PRESETS = ("default", "paper")


def method_terms(name: str, preset: str = "default") -> Preset:
    """The terms of a method as plain values.

    Those of `paper` that distil keep the rules of released codes on where cells lie (`cells:
    released`).

    Raises:
        ValueError: An unknown method or preset; the message gives the nearest name.
    """
    if name not in METHODS:
        raise ValueError(unknown("method", name, METHODS))
    if preset not in PRESETS:
        raise ValueError(unknown("preset", preset, PRESETS))
    terms = METHODS[name](preset)
    if preset == "default":
        return terms
    # Cross-entropy is at the pixels, where released codes and `align_corners` agree.
    return {
        name: term if term.loss == "cross_entropy" else replace(term, cells="released")
        for name, term in terms.items()
    }


def build_method(
    name: str,
    num_classes: int,
    preset: str = "default",
    terms: Mapping[str, Mapping[str, Any]] | None = None,
) -> Method:
    """Build a method of the catalogue.

    Args:
        name: A name of `segdistill list methods`.
        num_classes: Classes of the data, passed to the losses that take it.
        preset: `default` (weights that carry over) or `paper` (released forms and weights).
        terms: Overrides by term name, `{"channelwise": {"weight": 5}}`; an unknown name adds a term.

    Raises:
        ValueError: An unknown method, preset, loss or option; the message gives the nearest name.

    Example:
        >>> list(build_method("cwd", num_classes=19).terms)
        ['cross_entropy', 'cross_entropy_aux', 'cross_entropy_aux_coarse', 'channelwise']
    """
    specs = override(method_terms(name, preset), terms or {})
    return Method(name, build_terms(specs, num_classes))
