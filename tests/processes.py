"""What the system knows of a process (Linux)."""

from pathlib import Path


def children(process: int) -> list[int]:
    """Ids of the processes that a process has started and that are not gone."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sorted(int(child) for thread in threads for child in (thread / "children").read_text().split())
