"""The report: self-contained, complete, honest about what is missing or simulated, written whole or not at all."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest
from fabricated import N_IMAGES, write_align, write_all, write_evaluate, write_pretrain, write_reconstruct

from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.measured import read_measured, sources_of_folders
from neurobridge_tb.experiments.recipe import TableSpec
from neurobridge_tb.metrics.retrieval import chance
from neurobridge_tb.report.page import build_report
from neurobridge_tb.report.report_tables import retrieval_table
from neurobridge_tb.report.runs import find_runs

VOID = {"meta", "img", "br", "link", "input", "hr", "wbr"}


class Page(HTMLParser):
    """Collects text, images and addresses; checks that tags close in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.images, self.addresses, self.ids, self.text = [], [], [], [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs)
        self.addresses += [attrs[key] for key in ("src", "href", "srcset", "data", "action") if key in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        assert tag not in ("script", "link", "iframe")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def read(path):
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    page.text = re.sub(r"\s+", " ", page.text)
    return html, page


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("workspace")
    write_all(workspace)
    return workspace


@pytest.fixture(scope="module")
def report(workspace):
    path = build_report(workspace)
    assert path == workspace / "report" / "index.html"
    return read(path)


def test_one_file_needs_nothing_else(report):
    html, page = report
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "url(" not in html and "@import" not in html and "://" not in html
    for image in page.images:
        kind, _, content = image["src"].partition(";base64,")
        decoded = base64.b64decode(content)
        assert decoded.startswith(b"<svg" if "svg" in kind else b"\xff\xd8\xff")
        assert b'href="http' not in decoded


def test_every_image_is_described_and_every_link_leads_somewhere(report):
    _, page = report
    assert all(image["alt"] for image in page.images)
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_figures_stand_beside_chance_and_baselines(report):
    _, page = report
    for figure in ("37.5 %", "50.0 % (40–60)", "0.432", "1.000", "0.500", "0.300", "80.0 %", "0.450", "1.0 %", "5.0 %"):
        assert figure in page.text, figure
    assert "Above the 95 % interval of ridge (15–35 %)." in page.text
    assert "Better than the best baseline, nearest (higher is better)." in page.text
    assert "two-way CLIP: unavailable, needs some file." in page.text
    assert "Predicted image embedding: cosine to true 0.712." in page.text


def test_simulated_results_say_so_and_others_do_not(report, tmp_path):
    _, page = report
    assert "The recordings are simulated." in page.text
    assert page.text.count("simulated recordings") >= 6
    write_evaluate(tmp_path)
    file = tmp_path / "runs" / "evaluate" / "retrieval.json"
    file.write_text(file.read_text().replace("true", "false"))
    assert "simulated" not in read(build_report(tmp_path))[1].text


def test_gallery_holds_all_images_and_says_how_they_were_chosen(report):
    html, page = report
    assert html.count("The image that was shown: cat/cat_") == 8 + 3 * 6 + N_IMAGES
    for words in ("Best by", "Median by", "Worst by", "All 30 test images, from the best to", "Not picked by hand"):
        assert words in page.text
    assert "ranked by it, on the first of 2 samples." in page.text
    ranks = [int(rank) for rank in re.findall(r"rank (\d+) · ", page.text.split("All 30 test images")[1])]
    assert ranks == list(range(1, N_IMAGES + 1))


def test_gallery_prints_how_near_each_predicted_embedding_is(report):
    _, page = report
    assert "cat_00 · rank" in page.text and "embedding cosine -1.00" in page.text
    assert "cat_29 · rank" in page.text and "embedding cosine 1.00" in page.text


def test_of_many_samples_best_median_and_worst_are_shown_and_said_to_be_picked(tmp_path):
    write_reconstruct(tmp_path, samples=5)
    _, page = read(build_report(tmp_path))
    found = re.findall(r"flow, (best|median|worst)(-?[\d.]+)", page.text)
    assert len(found) == 3 * (3 * 6 + N_IMAGES)
    for (best, high), (median, middle), (worst, low) in zip(found[::3], found[1::3], found[2::3], strict=True):
        assert (best, median, worst) == ("best", "median", "worst") and float(high) >= float(middle) >= float(low)
    assert "which a decoder does not know" in page.text


def test_areas_stand_side_by_side(tmp_path):
    for area in (None, "IT", "V1"):
        write_reconstruct(tmp_path, area=area)
    html, page = read(build_report(tmp_path))
    assert "From each area alone" in page.text and "V1: PixCorr 0." in page.text
    names = ("all areas", "IT", "V1")
    assert [html.count(f'alt="{name} for cat/cat_') for name in names] == [8, 8, 8]
    write_reconstruct(tmp_path, image_id="dog/dog_{:02d}.jpg", area="V4")
    with pytest.raises(InputError, match="the same test images in the reconstructions from V4"):
        build_report(tmp_path)


def test_commands_times_and_settings_are_told(report):
    _, page = report
    for words in ("neurobridge simulate demo", "1 min 01 s", "900 MB", "seed: 17"):
        assert words in page.text


@pytest.mark.parametrize("write", [write_pretrain, write_align, write_evaluate, write_reconstruct])
def test_missing_stages_name_their_command(tmp_path, write):
    write(tmp_path)
    _, page = read(build_report(tmp_path, tmp_path / "page.html"))
    stage = write.__name__.removeprefix("write_")
    for command in {"pretrain", "evaluate", "reconstruct"} - {stage}:
        assert f"neurobridge {command}" in page.text
    assert "Not run yet." in page.text
    assert f"neurobridge {stage}" in page.text  # how it was made


@pytest.mark.parametrize("exists", [True, False])
def test_workspace_without_a_run_is_refused(tmp_path, exists):
    workspace = tmp_path / "empty"
    if exists:
        (workspace / "runs" / "pretrain").mkdir(parents=True)
    with pytest.raises(InputError, match="neurobridge demo"):
        build_report(workspace)
    assert not (workspace / "report").exists()


@pytest.mark.parametrize(
    "file",
    ["pretrain/metrics.json", "pretrain/masked_example.npz", "pretrain/metrics.csv", "reconstruct/reconstructions.h5"],
)
def test_broken_result_is_named_and_the_old_report_stays(tmp_path, file):
    write_all(tmp_path)
    out = tmp_path / "report" / "index.html"
    out.parent.mkdir()
    out.write_text("the old one")
    broken = tmp_path / "runs" / file
    broken.write_bytes(broken.read_bytes()[: -len(broken.read_bytes()) // 2] if file.endswith("5") else b"{broken")
    with pytest.raises(InputError, match=re.escape(str(broken))):
        build_report(tmp_path)
    assert out.read_text() == "the old one"
    assert [path.name for path in out.parent.iterdir()] == ["index.html"]


def test_failed_writing_leaves_nothing_behind(workspace, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        build_report(workspace, tmp_path / "index.html")
    assert not list(tmp_path.iterdir())


def test_names_from_files_are_escaped(tmp_path):
    write_reconstruct(tmp_path, image_id="<script>alert(1)</script>/{:02d}.jpg")
    html, _ = read(build_report(tmp_path))
    assert "<script>" not in html and "&lt;script&gt;" in html


def save_run(folder, command, **result):
    folder.mkdir(parents=True)
    content = {"command": command, "dataset": "a", "simulated": False} | result
    (folder / "metrics.json").write_text(json.dumps(content), encoding="utf-8")


def test_runs_of_ones_own_are_found_by_what_they_hold(tmp_path):
    rows = [
        {"decoder": "latents", "accuracy": {"value": 0.8, "low": 0.7, "high": 0.9}, "verdict": "not apart"},
        {"decoder": "spike counts", "accuracy": {"value": 0.85, "low": 0.7, "high": 0.9}, "verdict": "best"},
    ]
    save_run(tmp_path / "mine" / "monday", "neurobridge decode target=trials.side", rows=rows, target="trials.side")
    save_run(tmp_path / "other", 'score(root="x")', rows=[{"task": "forward", "bits": 0.25}], notes=["few units"])
    (tmp_path / "mine" / "monday" / "figures").mkdir()
    (tmp_path / "mine" / "monday" / "figures" / "confusion.svg").write_text("<svg></svg>", encoding="utf-8")
    page = Page(build_report(tmp_path).read_text(encoding="utf-8"))
    card = ("Decoding trials.side: accuracy", "80.0\N{NO-BREAK SPACE}%", "of spike counts (70–90\N{NO-BREAK SPACE}%)")
    for text in (*card, "mine/monday: trials.side", "0.850 (0.700-0.900)", "forward", "few units", "other"):
        assert text in page.text
    assert "Not run yet" not in page.text and "picture" not in page.text.split("Summary")[0]
    assert [image["alt"] for image in page.images] == ["mine/monday: trials.side: confusion"]


def test_the_folder_of_one_run_is_enough(tmp_path):
    save_run(tmp_path / "one", "neurobridge decode target=x", rows=[{"decoder": "latents", "R2": 0.5}], target="x")
    page = Page(build_report(tmp_path / "one", tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "one: x" in page.text and "0.500" in page.text


def test_a_baseline_and_a_ceiling_never_head_the_page(tmp_path):
    write_reconstruct(tmp_path)
    file = tmp_path / "runs" / "reconstruct" / "metrics.json"
    content = json.loads(file.read_text())
    row = content["rows"][1]
    content["rows"].append({**row, "backend": "flow from true features", "metrics": {"two-way toy": 0.99}})
    file.write_text(json.dumps(content))
    html, page = read(build_report(tmp_path))
    assert '<div class="value">80.0' in html and "Better than the best baseline, nearest" in page.text
    content["rows"] = [content["rows"][0], {**content["rows"][0], "backend": "mean training image"}]
    file.write_text(json.dumps(content))
    assert '<div class="value">' not in read(build_report(tmp_path))[0]


def test_a_judge_that_is_the_target_is_said_where_its_figure_stands(tmp_path):
    write_reconstruct(tmp_path)
    file = tmp_path / "runs" / "reconstruct" / "metrics.json"
    content = json.loads(file.read_text())
    content["judge"] = {"network": "net at 64 px", "independent": False}
    file.write_text(json.dumps(content))
    _, page = read(build_report(tmp_path))
    assert "(toy, by the target's own network)" in page.text
    content["judge"]["independent"] = True
    file.write_text(json.dumps(content))
    assert "own network" not in read(build_report(tmp_path))[1].text


def test_target_layers_have_a_figure_and_a_table(tmp_path):
    write_evaluate(tmp_path)
    file = tmp_path / "runs" / "evaluate" / "retrieval.json"
    content = json.loads(file.read_text())
    assert "By target layer" not in read(build_report(tmp_path))[1].text
    content["rows by layer"] = {layer: content["rows"] for layer in ("blocks.3@3x3", "final")}
    content["layer weights"] = {"blocks.3@3x3": 0.75, "final": 0.25}
    file.write_text(json.dumps(content))
    _, page = read(build_report(tmp_path))
    for words in ("By target layer", "blocks.3@3x3", "all layers", "blocks.3@3x3 0.75, final 0.25"):
        assert words in page.text


def test_each_recording_has_its_own_chance_level():
    def row(name, n):
        score = {"value": 0.5, "low": 0.4, "high": 0.6}
        where = {"trials": "repeat average", "direction": "neural to image", "n_candidates": n}
        return {"model": f"ridge ({name})", **where, "top1": score, "top5": score}

    sizes = {"a": 40, "b": 5}
    recordings = {r: {"n_candidates": n, "chance": chance(n)} for r, n in sizes.items()}
    content = {"rows": [row(*item) for item in sizes.items()], "recordings": recordings, "chance": chance(40)}
    (rows,) = retrieval_table(content).groups.values()
    assert [r.cells for r in rows if r.kind == "chance"] == [
        ["chance (a)", "2.5\xa0%", "12.5\xa0%"], ["chance (b)", "20.0\xa0%", "100.0\xa0%"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", '{"command": "neurobridge pretrain", "rows": [{"scheme": "a"}]}'),
        ("metrics.json", '{"command": "neurobridge reconstruct", "rows": [{"backend": "flow"}]}'),
        ("metrics.json", '{"command": "neurobridge score", "rows": [1, 2]}'),
        ("retrieval.json", '{"rows": []}'),
        ("retrieval.json", '{"command": "neurobridge evaluate", "rows": [{"method": "a"}], "n_candidates": "x"}'),
        ("metrics.csv", "\xff"),
    ],
)
def test_results_that_hold_something_else_are_an_error_with_their_place(tmp_path, name, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="as the jobs of this version write them"):
        build_report(tmp_path)
    assert not (tmp_path / "report").exists()
    with pytest.raises(InputError):
        read_measured(sources_of_folders([tmp_path / "run"]), TableSpec(compare="run"))


def test_runs_on_another_disk_are_found_once(tmp_path):
    for folder in ("space/mine", "disk/theirs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "metrics.json").write_text('{"command": "neurobridge decode"}')
    space = tmp_path / "space"
    (space / "latest").symlink_to("mine")
    (space / "linked").symlink_to(tmp_path / "disk" / "theirs")
    (space / "mine" / "up").symlink_to(space)
    assert [(run.name, run.job) for run in find_runs(space)] == [("linked", "decode"), ("mine", "decode")]
