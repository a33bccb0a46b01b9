"""Demo scenes: pictures with ground truth, made on the spot, so that every command runs on a fresh machine."""

from slotcon_plugin.demo_scenes.layouts import WRITERS
from slotcon_plugin.demo_scenes.make import contact_sheet, make_demo_scenes
from slotcon_plugin.demo_scenes.render import CLASSES, GROUNDS, OBJECTS, Scene, render_scene
from slotcon_plugin.demo_scenes.source import DemoScenes

__all__ = [
    "CLASSES",
    "GROUNDS",
    "OBJECTS",
    "WRITERS",
    "DemoScenes",
    "Scene",
    "contact_sheet",
    "make_demo_scenes",
    "render_scene",
]
