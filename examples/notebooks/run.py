"""Run the notebooks, each in a folder of its own: python examples/notebooks/run.py OUT [NAME ...]

Each `.py` here is a notebook in jupytext's percent format. It is executed in `OUT/NAME/`, and left there as
`NAME.ipynb` with its outputs. A cell that fails, or a notebook of over five minutes, ends the run.
"""

import sys
import time
from pathlib import Path

import jupytext
from nbclient import NotebookClient

LIMIT_S = 300
HERE = Path(__file__).parent


def run(source: Path, out: Path) -> float:
    """Execute one notebook; returns seconds."""
    out.mkdir(parents=True)
    notebook = jupytext.read(source)
    began = time.monotonic()
    try:
        NotebookClient(
            notebook, timeout=LIMIT_S, kernel_name="python3", resources={"metadata": {"path": out}}
        ).execute()
    finally:
        jupytext.write(notebook, out / f"{source.stem}.ipynb")
    seconds = time.monotonic() - began
    if seconds > LIMIT_S:
        raise TimeoutError(f"{source.name} took {seconds:.0f} s, more than {LIMIT_S} s")
    return seconds


if __name__ == "__main__":
    out, *names = sys.argv[1:]
    for source in sorted(HERE.glob("*.py")):
        if source.name != "run.py" and (not names or source.stem in names):
            print(f"{source.stem}: {run(source, Path(out) / source.stem):.0f} s", flush=True)
