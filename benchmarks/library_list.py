"""The networks of torchvision, timm and transformers that ``library_networks.py`` tries.

Of every family that a library has there are one or a few of its small ones, on small images. What
the libraries have no name for, such as the backbone of a detector, is made by functions here,
which ``fcdcc export`` takes as ``library_list:FUNCTION``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Entry:
    """One network.

    Parameters
    ----------
    name
        NAME of ``fcdcc export``; of transformers ``transformers:CLASS``, which becomes a folder.
    family
        Its row in the table.
    shape
        (C, *space) of the images; None for what the library says.
    config
        Members of the configuration of a network of transformers.
    """

    name: str
    family: str
    shape: tuple[int, ...] | None = None
    config: Mapping[str, Any] | None = None


# ------------------------------------------------------------------------ torchvision

_TORCHVISION = {
    "plain convolutions": "alexnet vgg11 vgg13_bn squeezenet1_0 squeezenet1_1",
    "residual": (
        "resnet18 resnet34 resnet50 resnext50_32x4d wide_resnet50_2 regnet_x_400mf regnet_y_400mf"
    ),
    "dense and inception": "googlenet inception_v3",
    "mobile": (
        "mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet0_5 shufflenet_v2_x0_5 "
        "shufflenet_v2_x1_0 efficientnet_b0 efficientnet_b1"
    ),
    "modern convolutions": "convnext_tiny",
    "vision transformer": "vit_b_32",
    "transformer with stages": "swin_t swin_v2_t",
    "hybrid": "maxvit_t",
    "segmentation": (
        "fcn_resnet50 deeplabv3_resnet50 deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large"
    ),
}
_SIDES = {
    "alexnet": 95, "inception_v3": 107, "vit_b_32": 224, "maxvit_t": 224, "googlenet": 96,
}  # fmt: skip
_VIDEO = {
    "r3d_18": (3, 8, 56, 56),
    "mc3_18": (3, 8, 56, 56),
    "r2plus1d_18": (3, 8, 56, 56),
    "s3d": (3, 16, 64, 64),
    "mvit_v2_s": (3, 16, 224, 224),
    "swin3d_t": (3, 8, 64, 64),
}


def _torchvision() -> list[Entry]:
    found = []
    for family, names in _TORCHVISION.items():
        for name in names.split():
            side = _SIDES.get(name, 64)
            found.append(Entry(f"torchvision:{name}", family, (3, side, side)))
    found += [Entry(f"torchvision:{n}", "video", shape) for n, shape in _VIDEO.items()]
    found += [
        Entry(f"library_list:{function}", "detection", (3, 64, 64))
        for function in (
            "faster_rcnn_backbone", "faster_rcnn_mobile_backbone", "retinanet", "fcos",
            "ssd_backbone", "ssdlite_backbone",
        )
    ]  # fmt: skip
    return found


def _detector(name: str) -> Any:
    from torchvision.models import get_model

    return get_model(name, weights=None, weights_backbone=None)


class _DenseDetector(nn.Module):
    """Backbone and heads of a detector without the choice of boxes: scores for all anchors."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: Any) -> Any:
        """Return what the heads give for the anchors of each image."""
        return self.head([*self.backbone(images).values()])


def faster_rcnn_backbone() -> nn.Module:
    """Return the feature pyramid of Faster R-CNN, as Mask and Keypoint R-CNN have it."""
    backbone: nn.Module = _detector("fasterrcnn_resnet50_fpn").backbone
    return backbone


def faster_rcnn_mobile_backbone() -> nn.Module:
    """Return the feature pyramid of Faster R-CNN with MobileNetV3."""
    backbone: nn.Module = _detector("fasterrcnn_mobilenet_v3_large_320_fpn").backbone
    return backbone


def retinanet() -> nn.Module:
    """Return RetinaNet without the choice of boxes."""
    return _DenseDetector(_detector("retinanet_resnet50_fpn"))


def fcos() -> nn.Module:
    """Return FCOS without the choice of boxes."""
    return _DenseDetector(_detector("fcos_resnet50_fpn"))


def ssd_backbone() -> nn.Module:
    """Return the backbone of SSD with VGG-16."""
    backbone: nn.Module = _detector("ssd300_vgg16").backbone
    return backbone


def ssdlite_backbone() -> nn.Module:
    """Return the backbone of SSDlite with MobileNetV3."""
    backbone: nn.Module = _detector("ssdlite320_mobilenet_v3_large").backbone
    return backbone


# ------------------------------------------------------------------------------- timm

_TIMM = {
    "plain convolutions": (
        "vgg11_bn repvgg_a0 mobileone_s0 gernet_s darknet17 fasternet_t0 vovnet39a ese_vovnet19b_dw"
    ),
    "residual": (
        "resnet18 resnet10t resnet26 resnet34d resnet50_gn resnetblur18 resnetaa34d "
        "ecaresnet26t ecaresnext26t_32x4d seresnet18 seresnext26d_32x4d resnetrs50 skresnet18 "
        "legacy_seresnet18 legacy_seresnext26_32x4d resnest14d res2net50_14w_8s res2next50 "
        "resnetv2_18 resnetv2_50x1_bit regnetx_002 regnety_002 regnetz_005 regnetv_040 "
        "eca_nfnet_l0 nf_resnet26 nf_regnet_b0 dm_nfnet_f0 gcresnext26ts seresnext26ts "
        "eca_resnext26ts bat_resnext26ts regnetz_b16 tresnet_m"
    ),
    "dense and inception": (
        "densenet121 densenetblur121d dpn48b dla34 dla46x_c inception_v3 inception_v4 "
        "inception_resnet_v2 xception41 legacy_xception cspresnet50 cspdarknet53 cs3darknet_s "
        "cs3darknet_focus_s hrnet_w18_small selecsls42 pnasnet5large rdnet_tiny hgnet_tiny "
        "hgnetv2_b0 cspnext_tiny"
    ),
    "mobile": (
        "efficientnet_b0 efficientnet_lite0 efficientnet_es efficientnet_b0_gn "
        "efficientnet_cc_b0_4e tf_efficientnet_b0 tf_efficientnetv2_b0 efficientnetv2_rw_t "
        "mixnet_s mnasnet_050 mobilenetv1_100 mobilenetv2_035 semnasnet_050 spnasnet_100 "
        "fbnetc_100 mobilenetv3_small_050 mobilenetv4_conv_small_035 lcnet_035 fbnetv3_b "
        "hardcorenas_a ghostnet_050 ghostnetv2_100 ghostnetv3_050 repghostnet_050 rexnet_100 "
        "tinynet_e lcnetv2_small mobilenet_edgetpu_v2_xs tf_mobilenetv3_small_minimal_100"
    ),
    "modern convolutions": (
        "convnext_atto convnextv2_atto convnext_zepto_rms convmixer_768_32 inception_next_atto "
        "mambaout_femto starnet_s050 focalnet_tiny_srf edgenext_xx_small repvit_m0_9 convformer_s18"
    ),
    "vision transformer": (
        "vit_tiny_patch16_224 "
        "deit_tiny_distilled_patch16_224 deit3_small_patch16_224 cait_xxs24_224 "
        "eva02_tiny_patch14_224 vit_small_patch16_dinov3 vit_relpos_small_patch16_224 "
        "vit_srelpos_small_patch16_224 beit_base_patch16_224 xcit_nano_12_p16_224 "
        "tnt_s_patch16_224 flexivit_small vit_small_patch14_dinov2 samvit_base_patch16_224 "
        "vit_medium_patch16_reg1_gap_256 naflexvit_base_patch16_gap"
    ),
    "transformer with stages": (
        "swin_tiny_patch4_window7_224 swin_s3_tiny_224 swinv2_tiny_window8_256 "
        "swinv2_cr_tiny_224 pvt_v2_b0 twins_pcpvt_small twins_svt_small mvitv2_tiny hiera_tiny_224 "
        "davit_tiny nest_tiny_jx crossvit_9_240 pit_ti_224 gcvit_xxtiny hieradet_small"
    ),
    "hybrid": (
        "mobilevit_xxs mobilevitv2_050 coat_lite_tiny convit_tiny efficientformer_l1 "
        "efficientformerv2_s0 efficientvit_b0 efficientvit_m0 fastvit_t8 levit_128s "
        "levit_conv_128s coatnet_nano_rw_224 maxvit_pico_rw_256 maxxvit_rmlp_nano_rw_256 "
        "coatnext_nano_rw_224 nextvit_small visformer_tiny tiny_vit_5m_224 swiftformer_xs "
        "vit_tiny_r_s16_p8_224 vit_base_resnet26d_224 volo_d1_224 caformer_s18 "
        "mobilenetv4_hybrid_medium_075 shvit_s1 iformer_t lowformer_b0 cpubone_nano "
        "vitamin_small_224 "
        "botnet26t_256 halonet26t lambda_resnet26t eca_botnext26ts_256 efficientvim_m1 csatv2 "
        "mobilenetv5_300m"
    ),
    "mixers": (
        "mixer_s32_224 gmixer_12_224 gmlp_ti16_224 resmlp_12_224 poolformer_s12 poolformerv2_s12 "
        "sequencer2d_s"
    ),
}  # fmt: skip
_SIDE = 64
LARGE_SIDE = 112
_TIMM_SIDES = {
    **dict.fromkeys(("inception_v3", "inception_v4", "inception_resnet_v2"), 107),
    **dict.fromkeys(("xception41", "legacy_xception", "pnasnet5large"), 96),
    "bat_resnext26ts": 256,
}
_CONVOLUTIONAL = (
    "plain convolutions", "residual", "dense and inception", "mobile", "modern convolutions",
)  # fmt: skip
_SMALL_HYBRIDS = [
    "mobilevit_xxs",
    "mobilevitv2_050",
    "efficientvit_b0",
    "fastvit_t8",
    "swiftformer_xs",
    "nextvit_small",
    "mobilenetv4_hybrid_medium_075",
    "caformer_s18",
    "pvt_v2_b0",
    "davit_tiny",
    "poolformer_s12",
    "poolformerv2_s12",
    "lambda_resnet26t",
]


def _timm() -> list[Entry]:
    found = []
    for family, names in _TIMM.items():
        for name in names.split():
            side = _TIMM_SIDES.get(name)
            if side is None and (family in _CONVOLUTIONAL or name in _SMALL_HYBRIDS):
                side = _SIDE
            found.append(Entry(f"timm:{name}", family, side and (3, side, side)))
    pyramids = ("resnet18", "mobilenetv3_small_050", "convnext_atto", "hrnet_w18_small")
    names = [f"library_list:features_of_{name}" for name in pyramids]
    return found + [Entry(name, "detection", (3, 64, 64)) for name in names]


def _features(name: str) -> Any:
    def made() -> Any:
        import timm

        return timm.create_model(name, features_only=True)

    return made


def __getattr__(name: str) -> Any:
    """Return the function for the feature maps of a network of timm: ``features_of_NAME``."""
    if name.startswith("features_of_"):
        return _features(name.removeprefix("features_of_"))
    raise AttributeError(name)


# ----------------------------------------------------------------------- transformers

_STAGES = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}
_VIT = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96,
    "image_size": 64, "patch_size": 8,
}  # fmt: skip
_SWIN = {"image_size": 64, "embed_dim": 24, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4}
_SMALL = (3, 64, 64)


def _transformers() -> list[Entry]:
    listed: list[tuple[str, str, tuple[int, ...] | None, Mapping[str, Any]]] = [
        ("ResNetForImageClassification", "residual", _SMALL, {"embedding_size": 16, **_STAGES}),
        (
            "RegNetForImageClassification",
            "residual",
            _SMALL,
            {"embedding_size": 16, "groups_width": 8, **_STAGES},
        ),
        (
            "BitForImageClassification",
            "residual",
            _SMALL,
            {
                "embedding_size": 32,
                "num_groups": 8,
                "hidden_sizes": [64, 64, 128, 128],
                "depths": [1, 1, 2, 1],
            },
        ),
        ("HGNetV2ForImageClassification", "dense and inception", _SMALL, {}),
        ("TextNetForImageClassification", "plain convolutions", _SMALL, {}),
        ("ConvNextForImageClassification", "modern convolutions", _SMALL, _STAGES),
        ("ConvNextV2ForImageClassification", "modern convolutions", _SMALL, _STAGES),
        (
            "FocalNetForImageClassification",
            "modern convolutions",
            _SMALL,
            {
                "image_size": 64,
                "embed_dim": 24,
                "depths": [1, 2],
                "focal_levels": [2, 2],
                "focal_windows": [3, 3],
            },
        ),
        ("DINOv3ConvNextModel", "modern convolutions", _SMALL, _STAGES),
        ("MobileNetV1ForImageClassification", "mobile", _SMALL, {"depth_multiplier": 0.25}),
        ("MobileNetV2ForImageClassification", "mobile", _SMALL, {"depth_multiplier": 0.35}),
        (
            "EfficientNetForImageClassification",
            "mobile",
            _SMALL,
            {"width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640},
        ),
        ("PPLCNetForImageClassification", "mobile", _SMALL, {"scale": 0.25}),
        ("ViTForImageClassification", "vision transformer", _SMALL, _VIT),
        ("DeiTForImageClassification", "vision transformer", _SMALL, _VIT),
        ("ViTMSNForImageClassification", "vision transformer", _SMALL, _VIT),
        (
            "BeitForImageClassification",
            "vision transformer",
            _SMALL,
            {**_VIT, "use_relative_position_bias": True},
        ),
        ("Data2VecVisionForImageClassification", "vision transformer", _SMALL, _VIT),
        ("Dinov2ForImageClassification", "vision transformer", _SMALL, _VIT),
        ("Dinov2WithRegistersForImageClassification", "vision transformer", _SMALL, _VIT),
        ("DINOv3ViTModel", "vision transformer", _SMALL, _VIT),
        ("IJepaForImageClassification", "vision transformer", _SMALL, _VIT),
        ("CLIPVisionModel", "vision transformer", _SMALL, _VIT),
        ("SiglipVisionModel", "vision transformer", _SMALL, _VIT),
        (
            "YolosForObjectDetection",
            "detection",
            _SMALL,
            {**_VIT, "image_size": [64, 64], "num_detection_tokens": 10},
        ),
        ("SwinForImageClassification", "transformer with stages", _SMALL, _SWIN),
        ("Swinv2ForImageClassification", "transformer with stages", _SMALL, _SWIN),
        ("DonutSwinForImageClassification", "transformer with stages", _SMALL, _SWIN),
        (
            "HieraForImageClassification",
            "transformer with stages",
            (3, 224, 224),
            {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]},
        ),
        (
            "PvtForImageClassification",
            "transformer with stages",
            _SMALL,
            {"image_size": 64, **_STAGES, "num_attention_heads": [1, 2, 3, 4]},
        ),
        (
            "PvtV2ForImageClassification",
            "transformer with stages",
            _SMALL,
            {"image_size": 64, **_STAGES, "num_attention_heads": [1, 2, 3, 4]},
        ),
        (
            "SegformerForImageClassification",
            "transformer with stages",
            _SMALL,
            {**_STAGES, "num_attention_heads": [1, 2, 3, 4]},
        ),
        ("PoolFormerForImageClassification", "mixers", _SMALL, _STAGES),
        (
            "MobileViTForImageClassification",
            "hybrid",
            _SMALL,
            {
                "image_size": 64,
                "hidden_sizes": [16, 24, 32],
                "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64],
            },
        ),
        (
            "MobileViTV2ForImageClassification",
            "hybrid",
            _SMALL,
            {"image_size": 64, "width_multiplier": 0.25},
        ),
        ("LevitForImageClassification", "hybrid", (3, 224, 224), {}),
        (
            "CvtForImageClassification",
            "hybrid",
            _SMALL,
            {"embed_dim": [16, 32, 48], "depth": [1, 2, 3], "num_heads": [1, 2, 3]},
        ),
        (
            "SwiftFormerForImageClassification",
            "hybrid",
            _SMALL,
            {"image_size": 64, "depths": [1, 1, 2, 1], "embed_dims": [16, 32, 48, 64]},
        ),
        (
            "SegformerForSemanticSegmentation",
            "segmentation",
            _SMALL,
            {**_STAGES, "num_attention_heads": [1, 2, 3, 4], "decoder_hidden_size": 32},
        ),
        ("MobileNetV2ForSemanticSegmentation", "segmentation", _SMALL, {"depth_multiplier": 0.35}),
        (
            "MobileViTForSemanticSegmentation",
            "segmentation",
            _SMALL,
            {
                "image_size": 64,
                "hidden_sizes": [16, 24, 32],
                "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64],
                "aspp_out_channels": 16,
            },
        ),
        (
            "DPTForDepthEstimation",
            "segmentation",
            _SMALL,
            {
                **_VIT,
                "num_hidden_layers": 4,
                "backbone_out_indices": [0, 1, 2, 3],
                "neck_hidden_sizes": [8, 8, 16, 16],
                "fusion_hidden_size": 16,
                "is_hybrid": False,
            },
        ),
        (
            "UperNetForSemanticSegmentation",
            "segmentation",
            _SMALL,
            {
                "hidden_size": 32,
                "auxiliary_in_channels": 48,
                "backbone_config": (
                    "ConvNextConfig",
                    {**_STAGES, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
                ),
            },
        ),
        (
            "GLPNForDepthEstimation",
            "segmentation",
            _SMALL,
            {**_STAGES, "num_attention_heads": [1, 2, 3, 4], "decoder_hidden_size": 16},
        ),
        (
            "Swin2SRForImageSuperResolution",
            "segmentation",
            _SMALL,
            {
                "image_size": 64,
                "embed_dim": 24,
                "depths": [2, 2],
                "num_heads": [2, 2],
                "window_size": 4,
            },
        ),
        (
            "VideoMAEForVideoClassification",
            "video",
            (4, 3, 32, 32),
            {**_VIT, "image_size": 32, "num_frames": 4},
        ),
        (
            "VivitForVideoClassification",
            "video",
            (4, 3, 32, 32),
            {**_VIT, "image_size": 32, "num_frames": 4, "tubelet_size": [2, 8, 8]},
        ),
        (
            "TimesformerForVideoClassification",
            "video",
            (4, 3, 32, 32),
            {**_VIT, "image_size": 32, "num_frames": 4},
        ),
    ]
    return [Entry(f"transformers:{name}", *rest) for name, *rest in listed]


GAINS = {
    "timm:levit_128s": 0.3,
    "timm:levit_conv_128s": 0.3,
    "transformers:LevitForImageClassification": 0.3,
    "library_list:ssdlite_backbone": 0.6,
}
"""Weights of batch normalisations relative to others, for networks that would be chaotic: with the
usual ones the live network in float32 is further than 1e-5 from itself in float64."""

HEAVY = frozenset(
    [
        "inception_resnet_v2",
        "pnasnet5large",
        "vgg11",
        "vgg11_bn",
        "vgg13_bn",
        "tresnet_m",
        "dm_nfnet_f0",
        "dpn48b",
        "efficientnetv2_rw_t",
        "hrnet_w18_small",
        "xception41",
        "legacy_xception",
        "cspdarknet53",
        "rdnet_tiny",
        "eca_nfnet_l0",
        "convmixer_768_32",
        "res2net50_14w_8s",
        "res2next50",
        "resnetrs50",
        "wide_resnet50_2",
        "resnext50_32x4d",
        "deeplabv3_resnet50",
        "fcn_resnet50",
        "resnetv2_50x1_bit",
        "inception_v4",
        "densenet121",
        "densenetblur121d",
        "nf_resnet26",
        "resnest14d",
        "hieradet_small",
        "beit_base_patch16_224",
        "samvit_base_patch16_224",
        "naflexvit_base_patch16_gap",
        "vit_base_resnet26d_224",
        "volo_d1_224",
        "mobilenetv5_300m",
        "maxvit_t",
        "retinanet",
        "fcos",
        "convnext_tiny",
        "ssd_backbone",
        "resnet50",
        "cspresnet50",
    ]
)
"""Networks that take longest; they come last."""


def entries() -> list[Entry]:
    """Return all networks in a mixed order, so that a part has all kinds; the largest last."""
    sys.path.insert(0, __file__.rsplit("/", 1)[0])
    every = [*_torchvision(), *_timm(), *_transformers()]
    order = sorted(range(len(every)), key=lambda place: place * 89 % len(every))
    return sorted((every[place] for place in order), key=_cost)


def _cost(entry: Entry) -> int:
    library, _, name = entry.name.partition(":")
    if name in HEAVY or (entry.shape is not None and entry.shape[1] == 16):
        return 2
    return int(library != "transformers" and (entry.shape is None or entry.shape[-1] > LARGE_SIDE))
