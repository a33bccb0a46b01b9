"""What every student-teacher pretrainer of this project shares."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn
from torch.utils.data import Dataset

from slotcon_plugin.declaration import PRETRAINING_KEY
from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models.backbones import describe_backbone
from slotcon_plugin.models.build import compile_parts, plain
from slotcon_plugin.models.distributed import synchronise_batchnorm
from slotcon_plugin.models.teacher import (
    cosine_momentum,
    ema_update,
    make_teacher,
    parameter_pairs,
    rise_and_fall_momentum,
)
from slotcon_plugin.models.timm_backbone import TimmBackbone
from slotcon_plugin.models.wide import use_quick_weight_gradients
from slotcon_plugin.registry import MODELS

_MOMENTUM_SCHEDULES = {
    "cosine": cosine_momentum,
    "rise_and_fall": rise_and_fall_momentum,
    "constant": lambda base, step, total: base,
}
# Ability of a method -> what a pretrainer has that has it, for messages.
_ABILITIES = {"groups": "prototypes (SlotCon)", "embeds_pixels": "a dense embedding (VADeR, DenseCL)"}


@dataclass(frozen=True)
class Method:
    """What a pretrainer is and what can be done with it; tools, converters and tables go by this.

    Attributes:
        name: in metadata and result files, ``'slotcon'``.
        title: for people, ``'SlotCon'``.
        transfers: the branch that its authors transfer; a run may choose the other, see :class:`BasePretrainer`.
        groups: it has ``group(images, branch)``, a :class:`~slotcon_plugin.models.Grouping` by prototypes, and
            ``prototypes(branch)``, ``(K, D)``.
        embeds_pixels: it has ``embed(images, branch)``, an embedding ``(B, D, h, w)`` of each position.
    """

    name: str
    title: str
    transfers: Literal["teacher", "student"] = "teacher"
    groups: bool = False
    embeds_pixels: bool = False


class BasePretrainer(BaseModel):
    """A student that learns by gradient and a teacher that averages it.

    A subclass names its :attr:`method`, builds the student's parts, calls :meth:`set_branches` with them, and
    implements :meth:`loss`.

    Args:
        teacher_momentum: momentum of the teacher at the start.
        teacher_momentum_schedule: ``'cosine'``, along which it rises to 1 over the run, ``'constant'``, or
            ``'rise_and_fall'``, which comes to 1 in the middle of the run and goes back.
        transfer_branch: ``'teacher'`` or ``'student'``: which one converters, probes and transfer runs take of this
            run's checkpoints unless they are told otherwise. None = that of a checkpoint that is gone on with, else
            the one that the method's authors transfer.
        channels_last: keep weights and images in ``torch.channels_last``, faster for convolutions.
        compile: run ``dense_parts`` through ``torch.compile``: True, or its mode, such as ``'reduce-overhead'``, which
            replays them as CUDA graphs; keys of the state dict stay the same.
        sync_bn: BatchNorm statistics over all ranks. Does nothing in one process. Those of a slot predictor are over
            all ranks in any case where its slots are packed, see :class:`GroupingObjective`.
        data_preprocessor: config of the module that turns a loader's batch into the arguments of ``forward``.

    Attributes:
        student, teacher: ``nn.ModuleDict`` of the branches' parts.
        teacher_steps: updates of the teacher so far; saved with the weights.
        total_steps: updates in the whole run, set by ``TeacherUpdateHook``; 0 means unknown, constant momentum.
        init: what the weights were before the first step, see :data:`PRETRAINING_KEY`; None = random.
        monitor: detached tensors of the last step for hooks to look at, those of further heads in a dict under the
            head's name; not part of the state.
        reporting: whether the figures of this step will be looked at; what only they need may be left out otherwise.
        dense_parts: the parts of both branches that see dense maps of a fixed size.
        heads, shown_head: names of a method's heads, and of the one whose grouping ``group`` gives; none of a method
            with one head.
    """

    dense_parts = ("backbone", "projector")
    heads: tuple[str, ...] = ()
    shown_head: str | None = None

    @property
    @abstractmethod
    def method(self) -> Method:
        """A class attribute of each pretrainer: ``method = Method("slotcon", "SlotCon", groups=True)``."""

    def __init__(
        self,
        teacher_momentum: float = 0.99,
        teacher_momentum_schedule: str = "cosine",
        transfer_branch: str | None = None,
        channels_last: bool = True,
        compile: bool | str = False,
        sync_bn: bool = True,
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        if not 0 <= teacher_momentum <= 1:
            raise UserError(f"teacher_momentum must be in [0, 1], got {teacher_momentum}")
        if teacher_momentum_schedule not in _MOMENTUM_SCHEDULES:
            raise UserError(
                f"teacher_momentum_schedule must be one of {sorted(_MOMENTUM_SCHEDULES)}, got "
                f"{teacher_momentum_schedule!r}"
            )
        if transfer_branch not in (None, "teacher", "student"):
            raise UserError(f"transfer_branch must be 'teacher' or 'student', got {transfer_branch!r}")
        if isinstance(compile, str) and compile not in (modes := torch._inductor.list_mode_options()):
            raise UserError(f"compile must be True, False or a mode of torch.compile, {sorted(modes)}; got {compile!r}")
        self.teacher_momentum = teacher_momentum
        self.teacher_momentum_schedule = teacher_momentum_schedule
        self.transfer_branch = transfer_branch or self.method.transfers
        self._chose_branch = transfer_branch is not None
        self.channels_last = channels_last
        self.data_preprocessor.channels_last = channels_last  # once where views are made, not in each forward pass
        self.compile_mode = "default" if compile is True else compile
        self.sync_bn = sync_bn
        self.total_steps = 0
        self.monitor: dict[str, Any] = {}
        self.reporting = True
        self._compiled: list[tuple[nn.Module, Callable]] = []
        self._averaged: tuple[list[Tensor], list[Tensor]] | None = None
        self.init: dict[str, Any] | None = None
        self._backbone_config: dict[str, Any] = {}
        self.register_buffer("teacher_steps", torch.zeros((), dtype=torch.int64))

    def build_backbone(self, config: dict) -> tuple[nn.Module, tuple[int, ...], tuple[int, ...]]:
        """A backbone from its config, with the channels and the strides of its stage maps."""
        norm_eval = inspect.signature(MODELS.get(config["type"])).parameters.get("norm_eval")
        if norm_eval and norm_eval.default is True and not config.get("init_cfg"):
            config = {"norm_eval": False, **config}  # mmdet's ResNets would go by statistics of nothing
        self._backbone_config = plain(config)
        backbone = MODELS.build(config)
        if isinstance(backbone, BaseModule) and not isinstance(backbone, TimmBackbone):  # mmdet's, mmseg's
            backbone.init_weights()
        return backbone, *describe_backbone(backbone)

    def set_branches(self, student: nn.ModuleDict, teacher_parts: tuple[str, ...]) -> None:
        """Take the student's parts, copy those named into the teacher, and prepare both for the hardware.

        Raises:
            UserError: the backbone is not among either's parts.
        """
        if "backbone" not in student or "backbone" not in teacher_parts:
            raise UserError(
                f"{type(self).__name__}.set_branches: student and teacher_parts need a 'backbone', which is what is "
                "transferred; a method without a teacher names it too and takes the student's (transfers='student')"
            )
        use_quick_weight_gradients(student)
        if self.sync_bn:
            student = synchronise_batchnorm(student)
        self.student = student
        self.teacher = make_teacher(student, teacher_parts)
        if self.channels_last:
            self.to(memory_format=torch.channels_last)
        if self.compile_mode:
            parts = [branch.get_submodule(name) for branch in (student, self.teacher) for name in self.dense_parts]
            self._compiled = compile_parts(parts, self.compile_mode)

    def train(self, mode: bool = True) -> BasePretrainer:
        """torch's. What is compiled is so for training's batches: pictures and probes bring maps of other sizes."""
        for part, call in self._compiled:
            part._compiled_call_impl = call if mode else None
        return super().train(mode)

    def branch(self, name: str) -> nn.ModuleDict:
        """``'student'`` or ``'teacher'`` -> its parts."""
        if name not in ("student", "teacher"):
            raise ValueError(f"branch must be 'student' or 'teacher', got {name!r}")
        return self.student if name == "student" else self.teacher

    def extract_features(self, images: Tensor, branch: str = "teacher") -> tuple[Tensor, ...]:
        """Stage maps of the backbone, finest first, for normalised images ``(B, 3, H, W)``."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return tuple(self.branch(branch)["backbone"](images))

    def update_teacher(self, left_out: Tensor | None = None) -> None:
        """One step of the moving average; called once after each step of the optimiser.

        Args:
            left_out: 1 where the device has left the step out, ``()`` float; the teacher then stays as well.
        """
        self.teacher_steps += 1 if left_out is None else (1 - left_out).long()
        steps = self.teacher_steps if self.teacher_steps.is_cuda else self.teacher_steps.item()
        momentum = _MOMENTUM_SCHEDULES[self.teacher_momentum_schedule](self.teacher_momentum, steps, self.total_steps)
        if left_out is not None:
            momentum = momentum + (1 - momentum) * left_out
        if self._averaged is None:
            self._averaged = parameter_pairs(self.teacher, self.student)
        ema_update(*self._averaged, momentum)

    def show_head(self, name: str | None) -> None:
        """Choose whose grouping ``group`` gives, where a method has several heads; None = the one that it is.

        Raises:
            UserError: there is no such head.
        """
        if name is not None and name not in self.heads:
            known = f"the heads {', '.join(self.heads)}" if self.heads else "one head, which has no name"
            raise UserError(f"head: {self.method.title} has {known}; got {name!r}")
        self.shown_head = name or self.shown_head

    def check_data(self, dataset: Dataset) -> None:
        """Refuse a data set whose views the loss could not work with, before the first step; none by default.

        Args:
            dataset: a :class:`~slotcon_plugin.data.TwoViewDataset`, or one that takes its place.

        Raises:
            UserError: says which of its options to set.
        """

    def require(self, ability: str, what_for: str) -> None:
        """Refuse what this method cannot do.

        Args:
            ability: ``'groups'`` or ``'embeds_pixels'``, see :class:`Method`.
            what_for: what asks for it.

        Raises:
            UserError: the method lacks the ability.
        """
        if not getattr(self.method, ability):
            raise UserError(f"{what_for} needs a method with {_ABILITIES[ability]}; {self.method.title} has none")

    def declare(self, checkpoint: dict, photos: int | None = None) -> None:
        """State in a checkpoint that is about to be written what wrote it, see :data:`PRETRAINING_KEY`."""
        checkpoint[PRETRAINING_KEY] = {
            "method": self.method.name,
            "title": self.method.title,
            "branch": self.transfer_branch,
            "groups": self.method.groups,
            "embeds_pixels": self.method.embeds_pixels,
            **getattr(self.data_preprocessor, "input_convention", {}),
            "backbone": self._backbone_config,
            "photos": photos,
            "init": self.init,
        }

    def recall(self, checkpoint: dict, pixels: bool = True) -> None:
        """Take over from a checkpoint of this method what its run started from and chose.

        Args:
            checkpoint: with what :meth:`declare` has stated, or without.
            pixels: normalise them as stated there, too; False = as the config says.
        """
        declared = checkpoint.get(PRETRAINING_KEY) or {}
        self.init = declared.get("init")
        if not self._chose_branch:
            self.transfer_branch = declared.get("branch", self.transfer_branch)
        if not pixels:
            return
        own = getattr(self.data_preprocessor, "input_convention", {})
        told = {name: declared[name] for name in ("mean", "std") if name in declared and name in own}
        if len(told) == 2 and told != {name: own[name] for name in told}:  # stated rounded: what agrees is left exact
            self.data_preprocessor.normalise_by(*([v / 255 for v in told[name]] for name in ("mean", "std")))

    def forward(self, inputs: TwoViewBatch | Tensor, mode: str = "tensor"):
        """mmengine's entry: ``mode='loss'`` for a batch of two views, ``mode='tensor'`` for plain images."""
        if mode == "loss":
            if self.compile_mode:  # what the last step's CUDA graphs have put out may be written over from here on
                torch.compiler.cudagraph_mark_step_begin()
            return self.loss(inputs)
        if mode == "tensor":
            return self.extract_features(inputs)
        raise ValueError(f"{type(self).__name__} knows mode='loss' and mode='tensor', got {mode!r}")

    @abstractmethod
    def loss(self, batch: TwoViewBatch) -> dict[str, Tensor]:
        """Losses (keys with ``loss``, summed by mmengine) and figures to log."""
