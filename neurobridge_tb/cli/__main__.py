"""``python -m neurobridge_tb.cli``."""

from neurobridge_tb.cli.main import run

run()
