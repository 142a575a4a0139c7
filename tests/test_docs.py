"""The guides: their snippets run, their links lead somewhere, and the commands that they name exist."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from unittest.mock import patch

import click
import pytest

from neurobridge_tb.cli.jobs import JobCommand
from neurobridge_tb.cli.main import main
from neurobridge_tb.configs.catalog import JOBS
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.multirun import recipe_of_sweep
from neurobridge_tb.generation import base as generators
from neurobridge_tb.masking import SCHEMES
from neurobridge_tb.registry_ext import modalities, registry
from neurobridge_tb.simulation import simulate_tvsd

ROOT = Path(__file__).parents[1]
GUIDES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
PAGES = [ROOT / "README.md", *GUIDES]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = "<!-- not run -->\n"  # before the fence of a snippet that needs what tests do not have


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def snippets(page: Path) -> list[tuple[int, str]]:
    """Line number and code of each Python block that is not marked as not run."""
    text = page.read_text(encoding="utf-8")
    blocks = [m for m in FENCE.finditer(text) if m[1] == "python" and not text[: m.start()].endswith(NOT_RUN)]
    return [(text[: m.start(2)].count("\n"), m[2]) for m in blocks]


def command_lines(page: Path, program: str) -> list[list[str]]:
    """Arguments of each line of a shell block that calls ``program``."""
    blocks = [m[2] for m in FENCE.finditer(page.read_text(encoding="utf-8")) if not m[1].startswith("python")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = (shlex.split(line.removeprefix("$ "), comments=True) for line in lines if program in line.split())
    return [command[1:] for command in commands if command[:1] == [program]]


def code_spans(page: Path) -> list[str]:
    """What stands in single backticks outside of blocks."""
    return re.findall(r"`([^`]+)`", FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the guides presuppose: `images/`, `raw/` and `processed/` of a tiny virtual monkey."""
    from torch_brain.pipeline import runner

    ws = tmp_path_factory.mktemp("docs")
    simulate_tvsd(ws, n_concepts=8, images_per_concept=4, n_test=6, n_repeats=4)
    pipeline = ROOT / "brainsets_pipelines" / "tvsd" / "pipeline.py"
    options = [f"--raw-dir={ws / 'raw'}", f"--processed-dir={ws / 'processed'}", "--single=monkeyF_norm"]
    with patch("sys.argv", ["runner", str(pipeline), *options]):
        runner.run()
    return ws


@pytest.fixture
def unchanged_tables() -> Iterator[None]:
    """Take back what a snippet registers."""
    with (
        patch.dict(SCHEMES),
        patch.dict(generators._generators),
        patch.dict(modalities.MODALITY_REGISTRY),
        patch.dict(registry._ID_TO_MODALITY),
        patch.dict(JOBS),
    ):
        yield


@pytest.mark.parametrize("page", [page for page in GUIDES if snippets(page)], ids=name)
def test_snippets_run(page, workspace, tmp_path, monkeypatch, unchanged_tables):
    monkeypatch.chdir(shutil.copytree(workspace, tmp_path / "workspace"))
    variables: dict = {}
    for line, code in snippets(page):
        exec(compile("\n" * line + code, str(page), "exec"), variables)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        linked = page.parent / target if target else page
        assert linked.exists(), link
        assert not anchor or anchor in anchors(linked), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_named_in_the_text_exist(page):
    folders = "neurobridge_tb|brainsets_pipelines|examples|tests|docs"
    paths = [span for span in code_spans(page) if re.fullmatch(rf"({folders})/[\w./-]*", span)]
    paths += [line[0] for line in command_lines(page, "python") if line[0].endswith(".py")]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_blocks_would_start(page):
    for job, *arguments in command_lines(page, "neurobridge"):
        command = main.commands[job]
        if "--multirun" in arguments:
            assert recipe_of_sweep(job, [a for a in arguments if a != "--multirun"])[0].factors
        elif isinstance(command, JobCommand) and "--help" not in arguments:
            compose_config(job, [a for a in arguments if not re.search(r"=\$\w", a)])  # without the shell's variables
        else:
            parse(command, job, arguments)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_the_text_exist(page):
    """A command in the text may leave out what it needs, or write … for it."""
    for span in code_spans(page):
        job, *arguments = (shlex.split(span) + [""])[1:] if span.startswith("neurobridge ") else [""]
        arguments = [a for a in arguments if a and not re.search("[…<]", a)]
        if not re.fullmatch(r"[a-z][a-z-]*", job):
            continue
        command = main.commands[job]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        assert {a for a in arguments if a.startswith("-")} <= options, span
        if isinstance(command, JobCommand):
            try:
                compose_config(job, [a for a in arguments if not a.startswith("-")])
            except InputError as error:
                assert error.expected.startswith("a value for"), span


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_fit_a_screen(page):
    """A line of a command has at most 120 characters, a command in a cell of a table at most 60."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for kind, block in FENCE.findall(text) if not kind.startswith("python")]
    assert [line for block in blocks for line in block.splitlines() if len(line) > 120] == []
    rows = "\n".join(line for line in FENCE.sub("", text).splitlines() if line.startswith("|"))
    commands = re.findall(r"`((?:neurobridge|brainsets|make|pip|python) [^`]+)`", rows)
    assert [command for command in commands if len(command) > 60] == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_brainsets_commands_would_start(page):
    from torch_brain.pipeline import runner
    from torch_brain.pipeline._cli import cli

    for job, *arguments in command_lines(page, "brainsets"):
        context = parse(cli.commands[job], job, arguments)
        if job == "prepare":
            pipeline = ROOT / "brainsets_pipelines" / context.params["brainset"] / "pipeline.py"
            runner.import_pipeline_cls_from_file(pipeline).parser.parse_args(context.args)


def parse(command: click.Command, job: str, arguments: list[str]) -> click.Context | None:
    """Parse a command's arguments without running it."""
    try:
        return command.make_context(job, list(arguments))
    except click.exceptions.Exit:  # --help
        return None


def test_every_name_of_the_python_page_can_be_imported_and_has_a_docstring():
    names = [span for span in code_spans(ROOT / "docs" / "api.md") if re.fullmatch(r"neurobridge_tb(\.\w+)+", span)]
    assert len(names) > 30
    for name in names:
        found = resolve_name(name)
        assert isinstance(found, dict) or found.__doc__, name


def test_the_reference_has_every_name_of_the_python_page():
    page, reference = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("api.md", "reference.md"))
    names = re.findall(r"^\| `(neurobridge_tb[\w.]+)`", page, re.MULTILINE)
    shown = re.findall(r"^::: (.*)$", reference, re.MULTILINE)
    assert shown == [name for name in names if name != "neurobridge_tb.MODALITY_REGISTRY"]  # a dict has no docstring
