"""Convert a pretrained backbone to torchvision's names; timm reads the same file.

    python tools/convert_to_torchvision.py work_dirs/slotcon_coco slotcon_r50.pth
    python tools/convert_to_torchvision.py slotcon_coco_r50_800ep.pth slotcon_r50.safetensors

Then, with images in RGB normalised by ImageNet's mean and std:

    model = torchvision.models.resnet50()
    model.load_state_dict(torch.load("slotcon_r50.pth")["state_dict"], strict=False)  # lacks fc alone
    model = timm.create_model("resnet50", num_classes=0, checkpoint_path="slotcon_r50.safetensors")
"""

from slotcon_plugin.command import run_command
from slotcon_plugin.convert.cli import run

if __name__ == "__main__":
    run_command(lambda: run("torchvision", __doc__))
