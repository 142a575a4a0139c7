"""Pipelines of installed packages in upstream's ``brainsets`` command, as brainsets_hook/ adds them until then."""

from pathlib import Path

from sources import lay_test, replace_once

FUNCTIONS = '''
ENTRY_POINT_GROUP = "torch_brain.pipelines"


def get_declared_pipelines() -> dict[str, Path]:
    """Folders of the pipelines that installed packages declare.

    A package declares a pipeline by an entry point of the group
    ``torch_brain.pipelines``, whose name is the brainset's id, and whose value is the
    package with ``pipeline.py``:

    .. code-block:: toml

        [project.entry-points."torch_brain.pipelines"]
        my_brainset_2025 = "my_package.pipelines.my_brainset_2025"

    The package is found without being imported.
    """
    folders = {}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        package, *inner = entry_point.value.split(".")
        spec = find_spec(package)
        for location in (spec and spec.submodule_search_locations) or ():
            folder = Path(location, *inner)
            if (folder / "pipeline.py").is_file():
                folders.setdefault(entry_point.name, folder)
    return folders


def find_pipeline_dir(brainset: str) -> Path:
    """Folder of a pipeline: torch_brain's own, or else one that a package declares."""
    own = Path(str(PIPELINES_PATH / brainset))
    return own if own.is_dir() else get_declared_pipelines()[brainset]
'''


def lay(upstream: Path) -> tuple[list[Path], list[Path]]:
    """Returns the changed files, and the tests to run."""
    cli = upstream / "torch_brain" / "pipeline" / "_cli"
    utils, prepare = cli / "utils.py", cli / "cli_prepare.py"
    replace_once(
        utils,
        "import os\nfrom importlib.resources import files\n",
        "import os\nfrom importlib.metadata import entry_points\nfrom importlib.resources import files\n"
        "from importlib.util import find_spec\n",
    )
    listed = '    ret = [name for name in ret if not name.startswith((".", "_"))]\n    return ret\n'
    declared = "    ret += [name for name in get_declared_pipelines() if name not in ret]\n    return ret\n"
    replace_once(
        utils, listed, listed.replace("    return ret\n", declared) + "\n" + FUNCTIONS
    )
    replace_once(
        prepare,
        "    PIPELINES_PATH,\n    expand_path,\n",
        "    expand_path,\n    find_pipeline_dir,\n",
    )
    replace_once(
        prepare,
        "pipeline_dir = PIPELINES_PATH / brainset",
        "pipeline_dir = find_pipeline_dir(brainset)",
    )
    test = lay_test(upstream, "test_declared_pipelines.py", "tests/cli")
    return [utils, prepare, test], [test, upstream / "tests" / "cli" / "test_cli.py"]
