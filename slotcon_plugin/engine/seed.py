"""The seed that a config asks for, checked where it enters: numpy would refuse it when a run is half built."""

from __future__ import annotations

from mmengine.config import Config

from slotcon_plugin.errors import UserError

HIGHEST = 2**32 - 1
"""The largest that numpy takes."""


def check_seed(cfg: Config) -> None:
    """Refuse a ``randomness.seed`` that cannot be one; None leaves the choice to the run.

    Raises:
        UserError: no whole number, or out of range.
    """
    seed = (cfg.get("randomness") or {}).get("seed")
    if seed is not None:
        require_seed("randomness.seed", seed)


def require_seed(name: str, seed: object) -> None:
    """Refuse a value of the option ``name`` that is no seed.

    Raises:
        UserError: no whole number, or out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= HIGHEST:
        raise UserError(f"{name}: expected a whole number from 0 to 2**32 - 1, got {seed!r}")
