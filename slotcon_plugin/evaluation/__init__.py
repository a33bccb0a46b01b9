"""Judge a pretraining without fine-tuning: unsupervised segmentation and probes on frozen features."""

from slotcon_plugin.evaluation.features import calibrate_batch_norm
from slotcon_plugin.evaluation.hook import LinearProbeHook, UnsupervisedSegHook
from slotcon_plugin.evaluation.labelled_set import LabelledSet
from slotcon_plugin.evaluation.probe import ProbeResult, probe_backbone
from slotcon_plugin.evaluation.readers import READERS, open_labelled_set
from slotcon_plugin.evaluation.unsupervised import UnsupervisedSegmentation, segment_unsupervised

__all__ = [
    "READERS",
    "LabelledSet",
    "LinearProbeHook",
    "ProbeResult",
    "UnsupervisedSegHook",
    "UnsupervisedSegmentation",
    "calibrate_batch_norm",
    "open_labelled_set",
    "probe_backbone",
    "segment_unsupervised",
]
