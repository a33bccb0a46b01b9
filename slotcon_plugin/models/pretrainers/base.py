"""What every student-teacher pretrainer of this project shares."""

from __future__ import annotations

from abc import abstractmethod

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from slotcon_plugin.models.distributed import synchronise_batchnorm
from slotcon_plugin.models.teacher import cosine_momentum, ema_update, make_teacher


class BasePretrainer(BaseModel):
    """A student that learns by gradient and a teacher that averages it.

    A subclass builds the student's parts, calls :meth:`set_branches` with them, and implements :meth:`loss`.

    Args:
        teacher_momentum: momentum of the teacher at the start.
        teacher_momentum_schedule: ``'cosine'``, along which it rises to 1 over the run, or ``'constant'``.
        channels_last: keep weights and images in ``torch.channels_last``, faster for convolutions.
        compile: run ``dense_parts`` through ``torch.compile``; keys of the state dict stay the same.
        sync_bn: BatchNorm statistics over all ranks. Does nothing in one process.
        data_preprocessor: config of the module that turns a loader's batch into the arguments of ``forward``.

    Attributes:
        student, teacher: ``nn.ModuleDict`` of the branches' parts.
        teacher_steps: updates of the teacher so far; saved with the weights.
        total_steps: updates in the whole run, set by ``TeacherUpdateHook``; 0 means unknown, constant momentum.
        monitor: detached tensors of the last step for hooks to look at; not part of the state.
        dense_parts: the parts of both branches that see dense maps of a fixed size.
    """

    dense_parts = ("backbone", "projector")

    def __init__(
        self,
        teacher_momentum: float = 0.99,
        teacher_momentum_schedule: str = "cosine",
        channels_last: bool = True,
        compile: bool = False,
        sync_bn: bool = True,
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        if not 0 <= teacher_momentum <= 1:
            raise ValueError(f"teacher_momentum must be in [0, 1], got {teacher_momentum}")
        if teacher_momentum_schedule not in ("cosine", "constant"):
            raise ValueError(
                f"teacher_momentum_schedule must be 'cosine' or 'constant', got {teacher_momentum_schedule!r}"
            )
        self.teacher_momentum = teacher_momentum
        self.teacher_momentum_schedule = teacher_momentum_schedule
        self.channels_last = channels_last
        self.compile_parts = compile
        self.sync_bn = sync_bn
        self.total_steps = 0
        self.monitor: dict[str, Tensor] = {}
        self.register_buffer("teacher_steps", torch.zeros((), dtype=torch.int64))

    def set_branches(self, student: nn.ModuleDict, teacher_parts: tuple[str, ...]) -> None:
        """Take the student's parts, copy those named into the teacher, and prepare both for the hardware."""
        if self.sync_bn:
            student = synchronise_batchnorm(student)
        self.student = student
        self.teacher = make_teacher(student, teacher_parts)
        if self.channels_last:
            self.to(memory_format=torch.channels_last)
        if self.compile_parts:
            for branch in (self.student, self.teacher):
                for part in self.dense_parts:
                    branch[part].compile()

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

    def update_teacher(self) -> None:
        """One step of the moving average; called once after each step that the optimiser really took."""
        self.teacher_steps += 1
        momentum = self.teacher_momentum
        if self.teacher_momentum_schedule == "cosine":
            momentum = cosine_momentum(momentum, self.teacher_steps.item(), self.total_steps)
        ema_update(self.teacher, self.student, momentum)

    def forward(self, views, crop_boxes=None, flipped=None, sample_index=None, mode: str = "tensor"):
        """mmengine's entry: ``mode='loss'`` for a batch of two views, ``mode='tensor'`` for plain images."""
        if mode == "loss":
            return self.loss(views, crop_boxes, flipped, sample_index)
        if mode == "tensor":
            return self.extract_features(views)
        raise ValueError(f"{type(self).__name__} knows mode='loss' and mode='tensor', got {mode!r}")

    @abstractmethod
    def loss(
        self, views: list[Tensor], crop_boxes: Tensor, flipped: Tensor, sample_index: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Losses (keys with ``loss``, summed by mmengine) and figures to log of two views of each image.

        Args:
            views: two ``(B, 3, S, S)`` normalised images.
            crop_boxes: ``(B, 2, 4)`` xyxy in continuous source pixels.
            flipped: ``(B, 2)`` bool.
            sample_index: ``(B,)`` int64, which photo of the source each pair of views is of.
        """
