"""Convert a checkpoint's backbone for timm: its own names, as .pth, .safetensors or a folder.

    python tools/convert_to_timm.py work_dirs/slotcon_continue my_backbone/
    python -c "import timm; timm.create_model('local-dir:my_backbone', pretrained=True)"

    python tools/convert_to_timm.py CKPT backbone.safetensors

Before anything is written timm builds the network, loads the weights, and its stage maps are compared.
"""

from slotcon_plugin.command import run_command
from slotcon_plugin.convert.cli import run

if __name__ == "__main__":
    run_command(lambda: run("timm", __doc__))
