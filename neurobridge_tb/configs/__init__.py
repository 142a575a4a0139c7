"""The settings of every job, as dataclasses, and the presets of its groups; they import nothing heavy."""
