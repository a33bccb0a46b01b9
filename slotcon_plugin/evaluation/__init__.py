"""Judge a pretraining without fine-tuning: unsupervised segmentation and probes on frozen features."""

from slotcon_plugin.evaluation.features import calibrate_batch_norm
from slotcon_plugin.evaluation.labelled_set import LabelledSet
from slotcon_plugin.evaluation.probe import ProbeResult, linear_probe
from slotcon_plugin.evaluation.readers import LAYOUTS, open_labelled_set

__all__ = ["LAYOUTS", "LabelledSet", "ProbeResult", "calibrate_batch_norm", "linear_probe", "open_labelled_set"]
