"""From names of files to pictures: what the tools and :func:`slotcon_plugin.look` call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from slotcon_plugin.errors import UserError
from slotcon_plugin.files import write_text
from slotcon_plugin.loading import load_pretrainer
from slotcon_plugin.photos import collect_photos, printable, read_photo
from slotcon_plugin.visualization.curves import plot_runs
from slotcon_plugin.visualization.curves_page import curves_page
from slotcon_plugin.visualization.grouped import group_photos, model_input
from slotcon_plugin.visualization.groups_page import groups_page
from slotcon_plugin.visualization.prototypes import find_nearest_segments, prototype_row
from slotcon_plugin.visualization.retrieval import DEFAULT_POINTS, draw_matches, nearest_pixels
from slotcon_plugin.visualization.run_figures import figures_of, read_run
from slotcon_plugin.visualization.sheet import below, contact_sheet
from slotcon_plugin.visualization.write import require_picture_path, write_pictures


def visualize_groups(
    config: str,
    checkpoint: str,
    photos: Sequence[str],
    out: str,
    limit: int = 16,
    short_side: int = 320,
    branch: str = "teacher",
    device: str = "cpu",
    head: str | None = None,
) -> Path:
    """Draw photos and the segments that a trained model divides them into; on a page those of an untrained one, too.

    Args:
        config: the config that trained the model.
        checkpoint: of that run, or its work dir: the newest whole one.
        photos: photos, or folders of them.
        out: picture (``.png``) or page (``.html``) to write.
        limit: photos to draw at most, evenly spaced.
        short_side: shorter side of what the model sees, in pixels; larger gives finer segments.
        branch: ``'teacher'`` or ``'student'``.
        device: where the model runs.
        head: whose grouping, of a method with several heads; None = the decoder's finest.

    Returns:
        The file written.

    Raises:
        UserError: no prototypes, no such head, no photo that can be read, or a file that cannot be read or written.
    """
    out = require_picture_path(out)
    paths = collect_photos(photos, limit)
    model = load_pretrainer(config, checkpoint, device)
    model.require("groups", "a picture of groupings")
    model.show_head(head)
    grouped = group_photos(model, paths, short_side, branch=branch)
    title = f"Groupings of {printable(Path(checkpoint).name)}"
    if out.suffix.lower() == ".png":
        return write_pictures(out, title, contact_sheet(grouped))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = load_pretrainer(config, checkpoint, device, trained=False)
    untrained.show_head(head)
    beside = group_photos(untrained, paths, short_side, branch=branch)
    write_text(out, groups_page(title, grouped, beside, from_weights=model.init is not None))
    return out


def visualize_prototypes(
    config: str,
    checkpoint: str,
    photos: Sequence[str],
    out: str,
    limit: int = 1000,
    prototypes: Sequence[int] | None = None,
    most_used: int = 12,
    nearest: int = 7,
    short_side: int = 224,
    device: str = "cpu",
    head: str | None = None,
) -> Path:
    """Draw what prototypes have learned: a row for each, of the segments of the photos that are nearest to it.

    Args:
        config, checkpoint, photos, out, device, head: see :func:`visualize_groups`.
        limit: photos to search at most, evenly spaced.
        prototypes: their numbers; None = those found in most photos.
        most_used: how many of these.
        nearest: segments a prototype, of at most one a photo.
        short_side: shorter side of what the model sees, in pixels.

    Returns:
        The file written.

    Raises:
        UserError: as :func:`visualize_groups`; there is no such prototype, or none to show.
    """
    out = require_picture_path(out)
    paths = collect_photos(photos, limit)
    model = load_pretrainer(config, checkpoint, device)
    model.require("groups", "a picture of prototypes")
    model.show_head(head)
    found = find_nearest_segments(model, paths, nearest, short_side)
    count = len(found.usage)
    chosen = list(prototypes) if prototypes else found.most_used(most_used)
    unknown = [k for k in chosen if not 0 <= k < count]
    if unknown:
        raise UserError(f"--prototypes: this model has prototypes 0 to {count - 1}, not {unknown}")
    if not chosen:
        raise UserError(f"no prototype owns 2 % of one of these {found.num_photos} photos, or none was asked for")
    rows = [prototype_row(model, paths, found, k, short_side) for k in chosen]
    title = f"Nearest segments to prototypes of {printable(Path(checkpoint).name)} in {found.num_photos} photos"
    return write_pictures(out, title, below(rows), [(f"prototype {k}", row) for k, row in zip(chosen, rows)])


@torch.no_grad()
def visualize_retrieval(
    config: str,
    checkpoint: str,
    photos: Sequence[str],
    out: str,
    points: Sequence[tuple[float, float]] | None = None,
    short_side: int = 320,
    branch: str = "teacher",
    device: str = "cpu",
) -> Path:
    """Draw points of one photo and the pixels of another that are most like them.

    Args:
        config, checkpoint, out, branch, device: see :func:`visualize_groups`.
        photos: two of them.
        points: xy in [0, 1] of the first photo; None = nine, spread over it.
        short_side: shorter side of what the model sees, in pixels.

    Returns:
        The file written.

    Raises:
        UserError: the pretrainer has no dense embedding, a point lies outside the photo, or a file cannot be read or
            written.
    """
    out = require_picture_path(out)
    points = points or DEFAULT_POINTS
    outside = [point for point in points if not all(0 <= x <= 1 for x in point)]
    if outside:
        raise UserError(f"--points are x,y in [0, 1] of the first photo, got {outside}")
    model = load_pretrainer(config, checkpoint, device)
    model.require("embeds_pixels", "retrieval")
    pixels = [read_photo(photo) for photo in photos]
    maps = [model.embed(model_input(photo, short_side, model), branch)[0].cpu() for photo in pixels]
    chosen = torch.tensor(points)
    sheet = draw_matches(pixels, chosen, *nearest_pixels(*maps, chosen))
    names = [printable(Path(path).name) for path in photos]
    return write_pictures(out, f"Nearest pixels of {names[0]} in {names[1]}", sheet)


def plot_run(
    runs: Sequence[str],
    out: str,
    names: Sequence[str] | None = None,
    figures: Sequence[str] | None = None,
    x: str = "iter",
    smooth: int = 1,
) -> Path:
    """Draw the curves of runs, to compare them.

    Args:
        runs: work dirs.
        out: picture (``.png``) or page (``.html``) to write.
        names: what to call the runs; None = as their folders are called.
        figures: what to plot; None = all there is.
        x: ``'iter'`` or ``'epoch'``.
        smooth: values to average over.

    Returns:
        The file written.

    Raises:
        UserError: not one name a run, ``smooth`` below 1, no run has such a figure, or a file cannot be read or
            written.
    """
    out = require_picture_path(out)
    if names and len(names) != len(runs):
        raise UserError(f"--names: expected {len(runs)} names, one a run, got {len(names)}")
    if smooth < 1:
        raise UserError(f"--smooth must be at least 1 value, got {smooth}")
    read = [read_run(run, name) for run, name in zip(runs, names or [None] * len(runs))]
    title, shown = "Curves of " + ", ".join(run.name for run in read), figures_of(read, figures)
    if out.suffix.lower() == ".html":
        write_text(out, curves_page(title, read, shown, x == "epoch", smooth))
        return out
    return write_pictures(out, title, plot_runs(read, shown, x == "epoch", smooth))
