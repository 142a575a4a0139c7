"""Run the notebooks, each in a folder of its own: python examples/notebooks/run.py OUT [NAME ...]

Each `.py` here is a notebook in jupytext's percent format. It is executed in `OUT/NAME/`, and left there as
`NAME.ipynb` with its outputs. A cell that fails ends the run, and so does a notebook of over five minutes: of the clock
or of the processors, whichever is less, so that neither other work on the machine nor waiting threads count against it.
"""

import resource
import sys
import time
from pathlib import Path

import jupytext
from nbclient import NotebookClient

LIMIT_S = 300
HERE = Path(__file__).parent


def processor_seconds() -> float:
    """User and system seconds of the processes that this one started and that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def run(source: Path, out: Path) -> tuple[float, float]:
    """Execute one notebook; returns its seconds, of the clock and of the processors."""
    out.mkdir(parents=True)
    notebook = jupytext.read(source)
    clock, processors = time.monotonic(), processor_seconds()
    try:
        NotebookClient(
            notebook, kernel_name="python3", record_timing=False, resources={"metadata": {"path": out}}
        ).execute()
    finally:
        jupytext.write(notebook, out / f"{source.stem}.ipynb")
    return time.monotonic() - clock, processor_seconds() - processors


if __name__ == "__main__":
    out, *names = sys.argv[1:]
    for source in sorted(HERE.glob("*.py")):
        if source.name != "run.py" and (not names or source.stem in names):
            clock, processors = run(source, Path(out) / source.stem)
            print(f"{source.stem}: {clock:.0f} s, {processors:.0f} s of processor time", flush=True)
            if min(clock, processors) > LIMIT_S:
                raise SystemExit(f"{source.name} took more than {LIMIT_S} s")
