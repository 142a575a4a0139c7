"""The wheel carries the pipelines inside the package; an editable installation reads them from the checkout."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PipelinesBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if version != "editable":
            build_data["force_include"]["brainsets_pipelines"] = "neurobridge_tb/brainsets_pipelines"
