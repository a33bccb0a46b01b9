"""Annotation files of one's own that are not whole, for every framework that trains on them."""

from __future__ import annotations

import json
from pathlib import Path


def write(root: Path, split: str, found: dict) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / f"annotations/{split}.json").write_text(json.dumps(found))


def change(root: Path, split: str, edit) -> None:
    found = json.loads((root / f"annotations/{split}.json").read_text())
    edit(found)
    write(root, split, found)


# what is wrong with a file of two photos of 160 x 120 with categories 7 (crate) and 3 (ball) -> what is said of it
INCOMPLETE = [
    (
        lambda found: found["images"][1].update(file_name="/home/me/1.jpg"),
        r"1 of 2 photos that .*val\.json names are not there; the first is /home/me/1\.jpg\. file_name has to be",
    ),
    (lambda found: found.update(annotations=[]), r"val\.json has 2 photos and 0 annotations"),
    (
        lambda found: found.update(images=[{"id": 1}]),
        r"val\.json is not a complete COCO annotation file: .*no 'file_name'",
    ),
    (lambda found: found.pop("annotations"), r"val\.json is not a complete COCO annotation file: .*no 'annotations'"),
    (lambda found: found.pop("images"), r"val\.json is not a complete COCO annotation file: .*no 'images'"),
    (lambda found: found["annotations"].append(7), r"val\.json .* annotations has to be a list of objects"),
    (
        lambda found: found["annotations"][1].pop("area"),
        r"val\.json .*: annotations\[1\] \(id \d+\) has no 'area'; 1 of \d+ annotations are incomplete\. Each "
        r"needs id, image_id, category_id, bbox, area: add them \(area: width x height of the bbox",
    ),
    (lambda found: [a.pop("bbox") for a in found["annotations"]], r"annotations\[0\] \(id \d+\) has no 'bbox'"),
    (
        lambda found: [i.update(width=None) or i.pop("height") for i in found["images"]],
        r"val\.json .*: images\[0\] \(id \d+\) has no 'width', 'height'; 2 of 2 images are incomplete\.",
    ),
    (
        lambda found: found["categories"][0].update(name=["crate"]),
        r"val\.json .*: categories\[0\] \(id 7\) has \['crate'\] as 'name': expected a text",
    ),
    (lambda found: found["images"][0].update(width="160"), r"has '160' as 'width': expected a finite number"),
    (lambda found: found["categories"][0].pop("name"), r"val\.json .*: categories\[0\] \(id 7\) has no 'name'"),
    (
        lambda found: found["images"][1].update(id=found["images"][0]["id"]),
        r"val\.json: 1 ids are of several images, the first is \d+: annotations would go to the wrong ones",
    ),
    (
        lambda found: found["annotations"][1].update(id=1),
        r"val\.json: 1 ids are of several annotations, the first is 1",
    ),
    (lambda found: found["categories"][1].update(id=7), r"val\.json: 1 ids are of several categories"),
    (
        lambda found: found["annotations"][0].update(category_id=4),
        r"val\.json: 1 of \d+ annotations have a category_id that no entry of categories has, the first is 4 of",
    ),
    (
        lambda found: [a.update(image_id=str(a["image_id"])) for a in found["annotations"]],
        r"have a image_id that no entry of images has, .*: a number here and a text there",
    ),
    (lambda found: found["annotations"][0]["bbox"].pop(), r"as 'bbox': expected a list of four finite numbers"),
    (  # which Python's JSON writes and reads
        lambda found: found["annotations"][1].update(bbox=[3, 4, float("inf"), 5]),
        r"annotations\[1\] \(id \d+\) has \[3, 4, inf, 5\] as 'bbox': expected a list of four finite numbers",
    ),
    (lambda found: found["annotations"][1].update(area=float("nan")), r"has nan as 'area': expected a finite number"),
    (
        lambda found: [a.update(area=0) for a in found["annotations"]],
        r"(\d+) of \1 annotations of .*val\.json are of no area.*Expected x, y, width, height in pixels",
    ),
    (
        lambda found: [a.update(bbox=[0.1, 0.1, 0.5, 0.5]) for a in found["annotations"]],
        r"(\d+) of \1 annotations of .*of less than a pixel",
    ),
    (
        lambda found: [i.update(width=i["height"], height=i["width"]) for i in found["images"]],
        r"val\.json gives .*\.jpg as 120 x 160 pixels, and it has 160 x 120; the labels are of the photo as it is",
    ),
    (lambda found: found["images"][0].update(width=161), r"as 161 x 120 pixels, and it has 160 x 120: its boxes"),
]
