"""What mmdet, mmsegmentation and detectron2 need from us: run their configs on a pretrained backbone, keep the result.

Importing this room imports none of the frameworks; ``openmmlab`` and ``detectron2`` modules do.
"""
