"""Names of one tensor in different frameworks: a table of rules, read in both directions.

A rule is a pair of templates, left = the canonical (torchvision) name, right = the other framework's. Fields in
braces stand for the same text on both sides; ``{level}`` is a number to which ``shift`` is added on the right
(detectron2 counts ``res2`` where torchvision counts ``layer1``). Every rule is anchored at both ends and the
templates of a table do not overlap, so the table is a bijection between the names it knows, and a name that it does
not know is an error instead of passing through.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from slotcon_plugin.errors import ConversionError

FIELDS = {
    "level": r"\d+",
    "block": r"\d+",
    "unit": r"[123]",
    "norm": r"weight|bias|running_mean|running_var|num_batches_tracked",
    "conv": r"weight|bias",
    "rest": r".+",
}


@dataclass(frozen=True)
class KeyMap:
    """A bijection between canonical names and one framework's names.

    Args:
        rules: pairs (canonical template, other template).
        shift: added to ``{level}`` on the way from canonical to other.
    """

    rules: tuple[tuple[str, str], ...]
    shift: int = 0

    def to_target(self, key: str) -> str:
        """Canonical name -> the framework's. Raises ConversionError for a name outside the table."""
        return _rewrite(key, self.rules, self.shift)

    def to_canonical(self, key: str) -> str:
        """The framework's name -> canonical. Raises ConversionError for a name outside the table."""
        return _rewrite(key, tuple((right, left) for left, right in self.rules), -self.shift)

    def knows_target(self, key: str) -> bool:
        """Whether ``key`` is a name that the framework side of this table can produce."""
        return any(_pattern(right).fullmatch(key) for _, right in self.rules)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """``layer{level}.{block}.bn{unit}.{norm}`` -> a regular expression with one named group a field."""
    parts = re.split(r"\{(\w+)\}", template)  # odd places hold the names of the fields
    return re.compile(
        "".join(f"(?P<{part}>{FIELDS[part]})" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    )


def _rewrite(key: str, rules: tuple[tuple[str, str], ...], shift: int) -> str:
    for source, target in rules:
        match = _pattern(source).fullmatch(key)
        if match:
            fields = match.groupdict()
            if "level" in fields:
                fields["level"] = str(int(fields["level"]) + shift)
            return target.format(**fields)
    raise ConversionError(f"no rule of the key map knows the name {key!r}; its rules: {[r[0] for r in rules]}")


def _same(*templates: str) -> tuple[tuple[str, str], ...]:
    return tuple((template, template) for template in templates)


TORCHVISION = KeyMap(
    _same(
        "conv1.weight",
        "bn1.{norm}",
        "layer{level}.{block}.conv{unit}.weight",
        "layer{level}.{block}.bn{unit}.{norm}",
        "layer{level}.{block}.downsample.0.weight",
        "layer{level}.{block}.downsample.1.{norm}",
    )
)
"""torchvision's ResNet; timm's and OpenMMLab's (mmdet, mmseg, ``style='pytorch'``) use the same names."""

TIMM = KeyMap((("{rest}", "{rest}"),))
TIMM_BACKBONE = KeyMap((("{rest}", "model.{rest}"),))
"""This project's TimmBackbone, in whose ``model`` timm's names stand as they are."""

DETECTRON2 = KeyMap(
    (
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.{norm}", "stem.conv1.norm.{norm}"),
        ("layer{level}.{block}.conv{unit}.weight", "res{level}.{block}.conv{unit}.weight"),
        ("layer{level}.{block}.bn{unit}.{norm}", "res{level}.{block}.conv{unit}.norm.{norm}"),
        ("layer{level}.{block}.downsample.0.weight", "res{level}.{block}.shortcut.weight"),
        ("layer{level}.{block}.downsample.1.{norm}", "res{level}.{block}.shortcut.norm.{norm}"),
    ),
    shift=1,
)

SEQUENTIAL = KeyMap(
    (
        ("conv1.weight", "0.weight"),
        ("bn1.{norm}", "1.{norm}"),
        ("layer{level}.{block}.conv{unit}.weight", "{level}.{block}.conv{unit}.weight"),
        ("layer{level}.{block}.bn{unit}.{norm}", "{level}.{block}.bn{unit}.{norm}"),
        ("layer{level}.{block}.downsample.0.weight", "{level}.{block}.downsample.0.weight"),
        ("layer{level}.{block}.downsample.1.{norm}", "{level}.{block}.downsample.1.{norm}"),
    ),
    shift=3,
)
"""``nn.Sequential(*resnet.children())``, as lightly's examples build their backbones."""

# A feature pyramid: lateral 1x1 and output 3x3 convolutions, level 0 = the map of stride 4, with a norm or a bias each.
PROJECT_FPN = KeyMap(
    (
        ("lateral.{level}.norm.{norm}", "decoder.fpn.lateral.{level}.norm.{norm}"),
        ("output.{level}.norm.{norm}", "decoder.fpn.output.{level}.norm.{norm}"),
        ("lateral.{level}.{conv}", "decoder.fpn.lateral.{level}.{conv}"),
        ("output.{level}.{conv}", "decoder.fpn.output.{level}.{conv}"),
    )
)
TORCHVISION_FPN = KeyMap(
    (
        ("lateral.{level}.norm.{norm}", "fpn.inner_blocks.{level}.1.{norm}"),
        ("output.{level}.norm.{norm}", "fpn.layer_blocks.{level}.1.{norm}"),
        ("lateral.{level}.{conv}", "fpn.inner_blocks.{level}.0.{conv}"),
        ("output.{level}.{conv}", "fpn.layer_blocks.{level}.0.{conv}"),
    )
)
DETECTRON2_FPN = KeyMap(
    (
        ("lateral.{level}.norm.{norm}", "fpn_lateral{level}.norm.{norm}"),
        ("output.{level}.norm.{norm}", "fpn_output{level}.norm.{norm}"),
        ("lateral.{level}.{conv}", "fpn_lateral{level}.{conv}"),
        ("output.{level}.{conv}", "fpn_output{level}.{conv}"),
    ),
    shift=2,
)
OPENMMLAB_FPN = KeyMap(
    (
        ("lateral.{level}.norm.{norm}", "neck.lateral_convs.{level}.bn.{norm}"),
        ("output.{level}.norm.{norm}", "neck.fpn_convs.{level}.bn.{norm}"),
        ("lateral.{level}.{conv}", "neck.lateral_convs.{level}.conv.{conv}"),
        ("output.{level}.{conv}", "neck.fpn_convs.{level}.conv.{conv}"),
    )
)


def _semantic(conv: Callable[[int], str], norm: Callable[[int], str]) -> KeyMap:
    """The table from what a framework calls the n-th block's convolution and norm."""
    rules = [
        ((f"scale.{{level}}.{n}.conv.weight", conv(n)), (f"scale.{{level}}.{n}.norm.{{conv}}", norm(n)))
        for n in range(4)
    ]
    return KeyMap(tuple(rule for pair in rules for rule in pair))


# The semantic branch on a pyramid: blocks of 3x3 convolution and GroupNorm; behind each an activation and, but at the
# finest level, a doubling, which files count and this table does not.
PROJECT_SEMANTIC = _semantic(
    lambda n: f"decoder.scale.{{level}}.{4 * n}.weight", lambda n: f"decoder.scale.{{level}}.{4 * n + 1}.{{conv}}"
)
MMSEG_SEMANTIC = _semantic(
    lambda n: f"decode_head.scale_heads.{{level}}.{2 * n}.conv.weight",
    lambda n: f"decode_head.scale_heads.{{level}}.{2 * n}.gn.{{conv}}",
)

# What an FCN head has before its classifier: 3x3 convolutions on the last stage map, a BatchNorm behind each.
PROJECT_FCN = KeyMap(
    (
        ("convs.{level}.conv.weight", "decoder.convs.{level}.conv.weight"),
        ("convs.{level}.bn.{norm}", "decoder.convs.{level}.bn.{norm}"),
    )
)
MMSEG_FCN = KeyMap(
    (
        ("convs.{level}.conv.weight", "decode_head.convs.{level}.conv.weight"),
        ("convs.{level}.bn.{norm}", "decode_head.convs.{level}.bn.{norm}"),
    )
)
