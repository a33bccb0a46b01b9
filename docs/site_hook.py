"""For mkdocs: the README is the site's first page, its links as they are seen from there."""

import re
from pathlib import Path

from mkdocs.structure.files import File


def on_files(files, config):
    """Add ``index.md``."""
    text = Path(config.config_file_path).with_name("README.md").read_text(encoding="utf-8")
    text = re.sub(r"(\]\()docs/", r"\1", text)
    files.append(File.generated(config, "index.md", content=text))
    return files
