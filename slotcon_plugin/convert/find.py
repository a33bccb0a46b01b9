"""Where in a checkpoint a network's weights lie: found by their names, under whatever prefix, then fitted by shape.

Nothing here knows an architecture: what is wanted comes as a state dict of the right names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slotcon_plugin.convert.names import KeyMap
from slotcon_plugin.errors import ConversionError

_BRANCH_WORDS = {
    "teacher": {"teacher", "momentum", "ema", "target", "averaged", "k"},
    "student": {"student", "online", "q"},
}
_CLASSIFIER = re.compile(r"(stem\.)?(fc|head|classifier)\d*\.")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Candidate:
    """Weights below one prefix.

    Attributes:
        prefix: what stands before their names in the file, for example ``state_dict.module.encoder_q.``.
        weights: everything below it; names that ``names`` knows are translated.
        names: key map of the file's names, None where they are those that are wanted.
    """

    prefix: str
    weights: Mapping[str, Tensor]
    names: KeyMap | None = None


def anchor_of(names: Iterable[str]) -> str:
    """The name of a network's tensors that is the least likely to end another's."""
    return max(names, key=lambda name: (name.count("."), name.endswith("weight")))


def find_candidates(tensors: Mapping[str, Tensor], anchor: str, names: KeyMap | None = None) -> list[Candidate]:
    """One candidate for every prefix under which the name ``anchor`` lies."""
    ending = names.to_target(anchor) if names else anchor
    prefixes = [key[: -len(ending)] for key in tensors if key == ending or key.endswith(f".{ending}")]
    return [Candidate(prefix, _below(tensors, prefix, names), names) for prefix in prefixes]


def _below(tensors: Mapping[str, Tensor], prefix: str, names: KeyMap | None) -> dict[str, Tensor]:
    inside = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    if names is None:
        return inside
    return {names.to_canonical(name) if names.knows_target(name) else name: value for name, value in inside.items()}


def name_branches(
    candidates: Sequence[Candidate], words: Mapping[str, str] | None = None
) -> list[tuple[str, Candidate]]:
    """Call each candidate ``student``, ``teacher`` or ``backbone`` by the words of its prefix.

    Args:
        candidates: of one file.
        words: branch -> regular expression that its prefix begins with, where the common words would mislead.
    """
    names = [_branch(candidate.prefix, words) for candidate in candidates]
    if names.count("backbone") == 1 and "teacher" in names and "student" not in names:
        names[names.index("backbone")] = "student"  # beside a named teacher the other one is the student
    return list(zip(names, candidates, strict=True))


def _branch(prefix: str, words: Mapping[str, str] | None) -> str:
    if words:
        return next((branch for branch, start in words.items() if re.match(start, prefix)), "backbone")
    tokens = set(re.split(r"[._]", prefix))
    return next((branch for branch, known in _BRANCH_WORDS.items() if tokens & known), "backbone")


def choose(
    candidates: Sequence[Candidate],
    where: str,
    branch: str | None = None,
    prefix: str | None = None,
    default: str | None = None,
    words: Mapping[str, str] | None = None,
) -> tuple[Candidate, str]:
    """The candidate that was asked for, or the only one; copies of the same weights count once.

    Raises:
        ConversionError: no such branch or prefix, or several candidates and nothing that tells which.
    """
    named = name_branches(candidates, words)
    shown = ", ".join(f"{b} ({candidate.prefix or 'no prefix'})" for b, candidate in named)
    if prefix is not None:
        named = [(b, c) for b, c in named if c.prefix.rstrip(".") == prefix.rstrip(".")]
        if not named:
            raise ConversionError(f"{where} has no backbone below {prefix!r}; it has {shown}")
    if branch is not None:
        named = [(b, c) for b, c in named if b == branch]
        if not named:
            raise ConversionError(f"{where} has no {branch}; it has {shown}")
    elif any(b == default for b, _ in named):
        named = [(b, c) for b, c in named if b == default]
    found, chosen = named[0]
    if any(not _same(chosen, other) for _, other in named[1:]):
        raise ConversionError(
            f"{where} holds several backbones and nothing that says which one its authors use: {shown}. "
            "Say --branch teacher|student, or --prefix PREFIX."
        )
    return chosen, found


def _same(one: Candidate, other: Candidate) -> bool:
    shared = one.weights.keys() & other.weights.keys()
    return all(
        _equal(one.weights[name], other.weights[name]) for name in shared if not name.endswith("num_batches_tracked")
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    comparable = not (one.is_meta or other.is_meta) and one.layout == other.layout == torch.strided
    return comparable and one.dtype == other.dtype and one.dtype in _FLOATS and torch.equal(one, other)


def fit(
    candidate: Candidate, expected: Mapping[str, Tensor], where: str, what: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The expected tensors out of a candidate's, in the expected order and dtype.

    BatchNorm counters, absent from old files, become zero. Other modules beside the network (heads, queues) are left
    over; a tensor inside one of its own modules that it has no place for is an error, since the network is another.

    Args:
        candidate: where to look.
        expected: names -> tensors of the right shape and dtype.
        where: the file and branch, for messages.
        what: the network, for messages.

    Raises:
        ConversionError: the first tensor that is missing, of another shape, no plain floating-point tensor, or not
            finite.
    """
    weights = dict(candidate.weights)
    complete: dict[str, Tensor] = {}
    for name, like in expected.items():
        value = weights.pop(name, None)
        if value is None and name.endswith("num_batches_tracked"):
            value = torch.zeros((), dtype=torch.int64)
        if value is None:
            missing = sum(n not in candidate.weights for n in expected if not n.endswith("num_batches_tracked"))
            raise ConversionError(
                f"{where}: {name} is missing from what looks like {what}; {missing} of {len(expected)} names are"
            )
        if value.shape != like.shape:
            raise ConversionError(f"{where}: {name} has shape {tuple(value.shape)}, {what} has {tuple(like.shape)}")
        complete[name] = as_plain(value, like.dtype, f"{where}: {name}")
    own = {name.partition(".")[0] for name in expected}
    if candidate.names:  # names that the map does not know stayed the file's
        own |= {candidate.names.to_target(name).partition(".")[0] for name in expected}
    strange = [name for name in weights if name.partition(".")[0] in own and not _CLASSIFIER.match(name)]
    if strange:
        raise ConversionError(
            f"{where}: {strange[0]} has no place in {what} ({len(strange)} such keys): it is another network"
        )
    return complete, sorted({name.partition(".")[0] for name in weights})


def as_plain(value: Tensor, dtype: torch.dtype, what: str) -> Tensor:
    """A copy of a tensor of numbers, dense and finite, in ``dtype``.

    Raises:
        ConversionError: quantised, sparse, without values, of whole numbers where fractions are wanted, NaN, ...
    """
    if value.is_quantized or value.layout != torch.strided or value.is_meta:
        kind = "quantised" if value.is_quantized else "without values" if value.is_meta else "sparse"
        raise ConversionError(f"{what} is {kind}; a plain tensor is needed: save the float state dict")
    repeats = any(stride == 0 and size > 1 for stride, size in zip(value.stride(), value.shape, strict=True))
    if repeats or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ConversionError(f"{what} repeats fewer numbers than its shape {tuple(value.shape)} holds: not weights")
    if dtype.is_floating_point and value.dtype not in _FLOATS:
        raise ConversionError(f"{what} is of {value.dtype}; expected floating point of 16, 32 or 64 bits")
    value = value.detach().to(dtype, copy=True).contiguous()
    if dtype.is_floating_point and not torch.isfinite(value).all():
        raise ConversionError(f"{what} holds NaN or infinity: the training had diverged, or the file is damaged")
    if what.endswith("running_var") and (value < 0).any():
        raise ConversionError(f"{what} holds a negative variance: the file is damaged")
    return value


def refuse_holes(weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights with a block of equal numbers, as a copy that failed leaves behind.

    For files without checksums (safetensors, pickles). 1024 equal bytes inside the weight of a convolution or a linear
    layer are found wherever they begin. Nothing else is looked at: biases, norms and what is added to tokens (MAE's
    position embedding of the class token) are constant in honest files too.
    """
    for name, value in weights.items():
        block = value.flatten()[: value.numel() // 128 * 128].view(-1, 128)
        if value.ndim > 1 and name.endswith("weight") and (block == block[:, :1]).all(dim=1).any():
            raise ConversionError(
                f"{where}: {name} has a block of 128 equal numbers: the file is damaged (or the network pruned: then "
                "save it with torch.save, whose files carry checksums)"
            )


def seen(keys: Iterable[str]) -> str:
    """What a file holds, in a line."""
    keys = list(keys)
    heads = sorted({".".join(key.split(".")[:2])[:60] for key in keys})
    return f"It holds {len(keys)} tensors, under: {', '.join(heads[:12])}{', ...' if len(heads) > 12 else ''}"
