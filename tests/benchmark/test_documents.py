"""Tables in documents: between their markers stands what the kept result files give."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from slotcon_plugin.benchmark.documents import fill_document, fill_markers

COCO = "detectron2_mask_rcnn_r50_fpn_1x_coco"


def test_markers_are_filled_and_half_ones_named():
    text = "a\n<!-- table:x begin -->\nold\n<!-- table:x end -->\nb\n"
    filled = fill_markers(text, lambda name: f"table {name}")
    assert filled == "a\n<!-- table:x begin -->\n\ntable x\n<!-- table:x end -->\nb\n"
    assert fill_markers(filled, lambda name: f"table {name}") == filled
    with pytest.raises(ValueError, match="table:x begin"):
        fill_markers("<!-- table:x begin -->\n", str)


def test_a_readme_that_differs_from_the_files_is_found(tmp_path, plan_file, result):
    root = tmp_path / "checkout"
    (root / "configs/benchmark").mkdir(parents=True)
    plan_file.rename(root / "configs/benchmark/small.py")
    (root / "docs").mkdir()
    (root / "docs/published.json").write_text('{"figures": []}')
    file = result("../checkout/docs/results/small/coco.json", "slotcon", COCO, AP_box=30.0, AP_mask=28.0)
    readme = root / "README.md"
    readme.write_text("# x\n<!-- table:small begin -->\n<!-- table:small end -->\n")
    assert fill_document(readme, root, write=False) == (False, [])
    assert fill_document(readme, root)[0] is False
    assert "[30.0](docs/results/small.md#slotcon-coco)" in readme.read_text()
    assert "[small/coco.json](small/coco.json)" in (root / "docs/results/small.md").read_text()
    assert fill_document(readme, root, write=False)[0] is True
    readme.write_text(readme.read_text().replace("[30.0]", "[33.0]"))  # by hand
    assert fill_document(readme, root, write=False)[0] is False
    fill_document(readme, root)
    file.unlink()
    assert fill_document(readme, root, write=False)[0] is False


def test_tables_of_the_documents_are_what_the_result_files_give(in_repo):
    for document in [Path("README.md"), *sorted(Path("docs").glob("*.md"))]:
        if "<!-- table:" in document.read_text().replace("`<!-- table:", ""):
            same, problems = fill_document(document, write=False)
            assert same, f"{document}: tools/benchmark_table.py --fill writes it; {problems}"


def test_the_metafile_says_what_was_measured(repo):
    index = yaml.safe_load((repo / "model-index.yml").read_text())
    for file in index["Import"]:
        content = yaml.safe_load((repo / file).read_text())
        collections = {entry["Name"] for entry in content["Collections"]}
        assert all((repo / entry["README"]).is_file() for entry in content["Collections"])
        for model in content["Models"]:
            assert model["In Collection"] in collections and (repo / model["Config"]).is_file()
            for result in model["Results"]:
                runs = [json.loads(path.read_text())["metrics"] for path in sorted(repo.glob(result["Runs"]))]
                assert len(runs) > 1 and result["Dataset"].endswith(f"mean of {len(runs)} seeds")
                for metric, figure in result["Metrics"].items():
                    assert figure == round(np.mean([run[metric] for run in runs]), 1), (model["Name"], metric)
