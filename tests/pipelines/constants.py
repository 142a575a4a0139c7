"""Constants of a pipeline, where a test needs others: tiny files, a server on this machine."""

from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def changed(runner, **constants):
    """While it lasts, upstream's runner loads pipelines with these constants."""
    load = runner.import_pipeline_cls_from_file

    def load_changed(path):
        cls = load(path)
        cls.get_manifest.__globals__.update(constants)
        return cls

    with patch.object(runner, "import_pipeline_cls_from_file", load_changed):
        yield
