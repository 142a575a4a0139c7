"""``python -m neurobridge_tb.cli``."""

from neurobridge_tb.cli.main import run

if __name__ == "__main__":
    run()
