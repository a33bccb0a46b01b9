"""What mmdet, mmsegmentation and detectron2 need from us: run their configs on a pretrained backbone, keep the result.

Importing this room imports none of the frameworks; the modules ``openmmlab``, ``mm_*`` and ``d2*`` do.
"""
