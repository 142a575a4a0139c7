"""Copy the downloader into each pipeline: ``python brainsets_pipelines/_shared/sync.py`` (``--check``: only compare)."""

import sys
from pathlib import Path

SHARED = Path(__file__).parent
BEGIN, END = "# ---- copied from here on ----\n", "# ---- to here ----\n"
HEAD, FOOT = (
    "# Download (a copy of ../_shared/download.py, made by sync.py)\n",
    "# End of the copy\n",
)


def with_copy(text):
    """A pipeline's text with the downloader as it is now."""
    source = (SHARED / "download.py").read_text(encoding="utf-8")
    body = source.split(BEGIN)[1].split(END)[0].strip("\n")
    before, _, rest = text.partition(HEAD)
    return f"{before}{HEAD}\n{body}\n\n\n{FOOT}{rest.partition(FOOT)[2]}"


def main():
    stale = []
    for path in sorted(SHARED.parent.glob("*/pipeline.py")):
        text = path.read_text(encoding="utf-8")
        if with_copy(text) != text:
            stale.append(path.parent.name)
            if "--check" not in sys.argv:
                path.write_text(with_copy(text), encoding="utf-8")
    print(
        "Downloader copied into:"
        if "--check" not in sys.argv
        else "Other downloader in:",
        ", ".join(stale) or "none",
    )
    return len(stale) if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
