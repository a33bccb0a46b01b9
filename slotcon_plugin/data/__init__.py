"""Unlabelled photos to batches of two augmented views with their geometry."""

from slotcon_plugin.data.dataset import BrokenPhotosError, TwoViewDataset
from slotcon_plugin.data.keys import SampleKey
from slotcon_plugin.data.photometric import PhotometricConfig
from slotcon_plugin.data.preprocessor import TwoViewPreprocessor
from slotcon_plugin.data.sampler import EpochSampler
from slotcon_plugin.data.sources import CocoImages, ConcatSources, ImageFolder, ListFile, PhotoSource

__all__ = [
    "BrokenPhotosError",
    "CocoImages",
    "ConcatSources",
    "EpochSampler",
    "ImageFolder",
    "ListFile",
    "PhotoSource",
    "PhotometricConfig",
    "SampleKey",
    "TwoViewDataset",
    "TwoViewPreprocessor",
]
