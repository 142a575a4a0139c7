"""Shows upstream's ``brainsets`` command the pipelines of installed packages, ours among them.

Upstream lists the folders in one folder of its own, and writing into another distribution's folder breaks an editable
checkout of it. A package declares its pipelines as entry points instead (group ``torch_brain.pipelines``: the
brainset's id, and the package whose folder holds ``pipeline.py``). Until upstream reads that group, this module does:
a ``.pth`` file loads it when Python starts, it waits for the one module of upstream that names the folder, and leaves
every other program alone. Where upstream has a pipeline of the same name, upstream's is used.
"""

import sys

GROUP = "torch_brain.pipelines"
WATCHED = ("torch_brain.pipeline._cli.utils", "brainsets._cli.utils")  # torch_brain 0.2, and the older line


class PipelineFolders:
    """Upstream's folder of pipelines and those declared elsewhere, as the command uses it: listed, joined, printed."""

    def __init__(self, upstream, declared):
        self.upstream, self.declared = upstream, declared

    def iterdir(self):
        yield from self.upstream.iterdir()
        yield from self.declared.values()

    def __truediv__(self, name):
        return self.declared.get(name, self.upstream / name)

    def __str__(self):
        return str(self.upstream)


def declared_folders():
    """Folder of each declared pipeline, found without importing the package that has it."""
    from importlib.metadata import entry_points
    from importlib.util import find_spec
    from pathlib import Path

    folders = {}
    for entry in entry_points(group=GROUP):
        package, *inner = entry.value.split(".")
        spec = find_spec(package)
        for location in (spec and spec.submodule_search_locations) or ():
            # Inside the installed package; beside it in a checkout.
            for folder in (Path(location, *inner), Path(location).parent.joinpath(*inner)):
                if (folder / "pipeline.py").is_file():
                    folders.setdefault(entry.name, folder)
    return folders


def add_declared(module):
    """Give upstream's module, once it has run, the folders that it does not list itself."""
    listed = set(module.get_available_brainsets())
    declared = {name: folder for name, folder in declared_folders().items() if name not in listed}
    if declared:
        module.PIPELINES_PATH = PipelineFolders(module.PIPELINES_PATH, declared)


class Finder:
    """Finds upstream's module as Python does, and adds to it after it has run. Nothing else is found here."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in WATCHED:
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                add_declared(module)

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder)
