"""A transfer config that feeds other pixels than the weights saw is stopped, with the field named."""

import pytest
import torch

from slotcon_plugin.convert import ConversionError, check_compatible, read_metadata
from slotcon_plugin.convert.metadata import IMAGENET_INPUT, UNKNOWN_INPUT

META = {**IMAGENET_INPUT, "source_file": "slotcon.pth"}


def test_what_is_unknown_is_warned_of_and_passes():
    meta = {**UNKNOWN_INPUT, "source_file": "x.pth"}
    with pytest.warns(UserWarning, match=r"x\.pth does not say on which pixels it was trained \(colour_order, mean\)"):
        check_compatible(meta, colour_order="BGR", mean=[1, 2, 3], stem="7x7")
    with pytest.raises(ConversionError, match="stem"):
        check_compatible(meta, stem="deep")


def test_the_recipe_agrees():
    check_compatible(
        META,
        colour_order="RGB",
        mean=[123.675, 116.280, 103.530],
        std=(58.395, 57.12, 57.375),
        stem="7x7",
        stride_in_1x1=False,
    )
    check_compatible(META)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"colour_order": "BGR"}, "colour_order: the weights want RGB, the config has BGR"),
        ({"mean": [103.53, 116.28, 123.675]}, r"mean: the weights want \[123\.675, .* the config has \[103\.53"),
        ({"std": [1.0, 1.0, 1.0]}, r"std: .* the config has \[1\.0, 1\.0, 1\.0\]"),
        ({"std": [57.375, 57.12, 58.395]}, "std: "),
        ({"mean": [123.675]}, "mean: "),
        ({"stem": "deep"}, "stem: the weights want 7x7, the config has deep"),
        ({"stride_in_1x1": True}, "stride_in_1x1: the weights want False, the config has True"),
    ],
)
def test_each_difference_is_named(asked, said):
    with pytest.raises(ConversionError, match=f"does not fit the weights of slotcon.pth:\n  {said}"):
        check_compatible(META, **asked)


def test_the_scale_slip_of_the_reference_configs_is_recognised():
    """They subtract .485 and divide by .229 on 0..255 pixels."""
    with pytest.raises(ConversionError, match=r"mean: .*0\.\.1 scale.*\n  std: .*0\.\.1 scale"):
        check_compatible(META, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


def test_a_file_that_this_package_did_not_write_has_no_metadata(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=r"carries no conversion metadata.*Convert the checkpoint first"):
        read_metadata(tmp_path / "x.pth")
