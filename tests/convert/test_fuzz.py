"""200 damaged checkpoints, always the same: each is refused with its name, or gives the very same weights."""

import random

import pytest
import timm
import torch
from safetensors.torch import save_file

from slotcon_plugin.convert import ConversionError, convert, read_checkpoint
from slotcon_plugin.convert.network import network_by_name

NETWORK = network_by_name("test_resnet")  # of timm's: a file of a megabyte and a half, which is written 200 times


def flip(content, rng):
    for _ in range(rng.choice((1, 1, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def flip_an_end(content, rng):
    """Headers, names and directories stand at the ends."""
    position = rng.randrange(6000)
    content[position if rng.random() < 0.5 else -1 - position] ^= 1 << rng.randrange(8)


def hole(content, rng):
    start = rng.randrange(len(content) - 4096)
    content[start : start + 4096] = bytes(4096)


def cut(content, rng):
    del content[rng.randrange(len(content)) :]


def repeat(content, rng):
    """A block that was written twice, the second time in another's place."""
    start, other = (rng.randrange(len(content) - 4096) for _ in range(2))
    content[start : start + 4096] = content[other : other + 4096]


def zip_file(path, state_dict):
    torch.save({"state_dict": state_dict, "epoch": 3}, path)


def legacy_file(path, state_dict):
    torch.save({"state_dict": state_dict}, path, _use_new_zipfile_serialization=False)


def converted_pickle(path, state_dict):
    zip_file(path.with_suffix(".pth"), state_dict)
    convert(path.with_suffix(".pth"), path, "detectron2", network=NETWORK)


def converted_safetensors(path, state_dict):
    zip_file(path.with_suffix(".pth"), state_dict)
    convert(path.with_suffix(".pth"), path, "timm", network=NETWORK)


EVERYTHING = (flip, flip_an_end, hole, cut, repeat)
# Formats without checksums cannot tell a flipped bit from a weight; the files that we write carry a hash.
FORMATS = {
    "zip": (zip_file, "x.pth", EVERYTHING, 80),
    "legacy": (legacy_file, "x.pth", (hole, cut), 20),
    "safetensors": (lambda path, state_dict: save_file(state_dict, path), "x.safetensors", (hole, cut), 20),
    "converted pickle": (converted_pickle, "x.pkl", EVERYTHING, 40),
    "converted safetensors": (converted_safetensors, "x.safetensors", EVERYTHING, 40),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_refused_or_harmless(name, tmp_path):
    write, file_name, damages, count = FORMATS[name]
    want = timm.create_model(NETWORK.name, num_classes=0).state_dict()
    path = tmp_path / file_name
    write(path, want)
    whole = path.read_bytes()
    refused = []
    for seed in range(count):
        rng = random.Random(seed)
        content = bytearray(whole)
        damages[seed % len(damages)](content, rng)
        path.write_bytes(content)
        try:
            found = read_checkpoint(path, network=NETWORK).state_dict
        except ConversionError as error:
            refused.append(str(error))
        else:
            assert all(torch.equal(found[key], value) for key, value in want.items() if "num_batches" not in key), seed
    assert all(file_name in message for message in refused)
    assert len(refused) > count // 2
