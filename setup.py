"""Packaging of slotcon_plugin. Tested versions are stated in one place: requirements/tested.txt; the oldest that
work in requirements/oldest.txt."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
README = ROOT / "README.md"
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "slotcon_plugin/__init__.py").read_text()).group(1)

# What pretraining imports. Everything here comes as a wheel: nothing compiles.
INSTALL_REQUIRES = [
    "torch>=2.6",  # add_safe_globals takes names; the oldest whose weights_only reads mmengine's checkpoints safely
    "torchvision>=0.21",
    "mmengine>=0.10.4",
    "numpy>=1.24",
    "opencv-python>=4.6",
    "Pillow>=11.0",  # the size of a TIFF is that of the upright picture
    "simplejpeg>=1.7",
    "scipy>=1.10",
    "timm>=1.0.26",
    "safetensors>=0.4",
    "matplotlib>=3.7.5",
    "tensorboard>=2.12",
    "jinja2>=3.1",
    "tabulate>=0.9",
    "shtab>=1.7",
    "rich>=13",
]
# The maintained onedl-* forks own the same modules: installed beside mmengine, mmcv, mmdet or mmsegmentation they would
# overwrite them file by file. docs/install.md says how to take them instead.
# mmcv is a source package that compiles its ops: it needs torch and setuptools<80 in the environment and
# --no-build-isolation (docs/install.md). mmdet 3.3.0 and mmsegmentation 1.2.2 refuse mmcv 2.2.
MMCV = "mmcv>=2.0.0rc4,<2.2"
EXTRAS = {
    "mmdet": [MMCV, "mmdet>=3.2"],
    "mmseg": [MMCV, "mmsegmentation>=1.2", "ftfy", "regex"],
    "detectron2": [
        "detectron2 @ git+https://github.com/facebookresearch/detectron2.git",
        "cityscapesscripts",
    ],
    "parquet": ["pyarrow>=14"],
    "docs": ["mkdocs-material>=9.5"],
    "dev": ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6", "scikit-learn>=1.3", "ruff>=0.6"],
}
EXTRAS["all"] = sorted({*EXTRAS["mmdet"], *EXTRAS["mmseg"], *EXTRAS["detectron2"]})

FOR_THE_CHECKOUT = ("setup_env.sh", "run_tests.sh", "quickstart.sh")


class BuildWithConfigs(build_py):
    """Puts configs/ and tools/ into the package as ``.mim/``, where OpenMMLab's ``mim`` and ``find_config`` look.

    They are copied into the build alone: the checkout has them once, and an editable install reads them there.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "slotcon_plugin", ".mim")
        shutil.rmtree(target, ignore_errors=True)  # what an earlier build has left
        leave = shutil.ignore_patterns("__pycache__", ".*", *FOR_THE_CHECKOUT)
        for folder in ("configs", "tools"):
            shutil.copytree(ROOT / folder, target / folder, ignore=leave)
        for file in ROOT.glob("model-index.yml"):
            shutil.copy(file, target)


setup(
    name="slotcon_plugin",
    version=VERSION,
    description="SlotCon and VADeR pretraining for detectron2, mmdetection and mmsegmentation",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["slotcon_plugin", "slotcon_plugin.*"]),
    entry_points={"console_scripts": ["slotcon = slotcon_plugin.cli:main"]},
    cmdclass={"build_py": BuildWithConfigs},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS,
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
