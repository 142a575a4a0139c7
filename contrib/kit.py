"""Lay one of our pieces into a checkout of torch_brain, run upstream's checks on it, and commit it with the pull
request's text: ``make contrib UPSTREAM=<checkout> PIECE=rotary``.

A checkout is a clone, or an unpacked source archive. Patches are made from our code; none of upstream's is kept here.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import brainset_pieces
import entrypoints_piece
import rotary_piece

ROOT = Path(__file__).parents[1]
BASE = "main"
PIECES = {
    "rotary": rotary_piece.lay,
    "entrypoints": entrypoints_piece.lay,
    "tvsd": brainset_pieces.lay_tvsd,
    "allen": brainset_pieces.lay_allen,
}


@dataclass
class PullRequest:
    """What docs/contributing_upstream.md says of a piece: title, changelog section and line, and the text."""

    title: str
    section: str
    line: str
    text: str


def pull_request(piece: str) -> PullRequest:
    """The section ``## <piece>`` of docs/contributing_upstream.md."""
    page = (ROOT / "docs" / "contributing_upstream.md").read_text(encoding="utf-8")
    body = re.split(r"^## ", page.split(f"\n## {piece}\n")[1], flags=re.M)[0]
    head, _, text = body.strip().partition("\n\n")
    fields = dict(re.findall(r"^- (\w+): (.+)$", head, flags=re.M))
    return PullRequest(
        fields["Title"], fields["Section"], fields["Changelog"], text.strip()
    )


def attempt(upstream: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout, on the checkout's own sources."""
    environment = os.environ | {"PYTHONPATH": str(upstream)}
    return subprocess.run(
        command, cwd=upstream, env=environment, capture_output=True, text=True
    )


def run(upstream: Path, *command: str, errors: bool = False) -> str:
    """Run a command in the checkout; stop where it fails. Returns what it prints, or what it says of errors."""
    done = attempt(upstream, *command)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stderr if errors else done.stdout


@contextmanager
def without_the_piece(upstream: Path) -> Iterator[Path]:
    """The checkout as it was, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run(upstream, "git", "worktree", "add", "-q", "--detach", folder, BASE)
        yield Path(folder)
        run(upstream, "git", "worktree", "remove", "--force", folder)


def require_nothing_new(
    upstream: Path, what: str, find: Callable[[Path], set[str]]
) -> str:
    """Stop where a check finds what it does not find without the piece."""
    found = find(upstream)
    if found:
        with without_the_piece(upstream) as base:
            new = found - find(base)
        if new:
            sys.exit(f"{what}, with the piece only:\n" + "\n".join(sorted(new)))
    return f"{what}: nothing new" + f" ({len(found)} without the piece too)" * bool(
        found
    )


def run_tests(upstream: Path, *tests: str) -> str:
    """Run tests; stop where one fails that passes without the piece. Some of upstream's need its bucket."""
    said = {}

    def failing(folder: Path) -> set[str]:
        some = said.setdefault("failed", tests)
        done = attempt(folder, sys.executable, "-m", "pytest", "-q", "-rfE", *some)
        found = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, flags=re.M)
        said.setdefault("last", done.stdout.splitlines()[-1:])
        said["failed"] = found
        if done.returncode and not found:
            sys.exit(f"{done.stdout}\n{done.stderr}")
        return set(found)

    nothing_new = require_nothing_new(upstream, "Tests that fail", failing)
    return f"{' '.join(said['last'])}; {nothing_new}"


def types(folder: Path) -> set[str]:
    """What upstream's type checker says, without line numbers."""
    command = (sys.executable, "-m", "ty", "check", "--output-format", "concise")
    done = attempt(folder, *command, "--python", sys.prefix)
    if done.returncode not in (0, 1):
        sys.exit(f"{done.stdout}\n{done.stderr}")
    lines = re.findall(r"^(\S+?):\d+:\d+: (error.*)$", done.stdout, flags=re.M)
    return {f"{file}: {error}" for file, error in lines}


def docs(folder: Path, names: list[str]) -> set[str]:
    """Build upstream's pages; what Sphinx says of the files and classes named."""
    with tempfile.TemporaryDirectory() as out:
        command = ("-m", "sphinx", "-q", "-b", "html", "docs/source", out)
        said = run(folder, sys.executable, *command, errors=True)
    said = re.sub(r":\d+:", ":", said.replace(str(folder), ""))
    return {line for line in said.splitlines() if any(name in line for name in names)}


def new_branch(upstream: Path, piece: str) -> None:
    """Begin a branch; an unpacked archive becomes a repository first."""
    if not (upstream / ".git").exists():
        run(upstream, "git", "init", "-q", "-b", "main")
        commit(upstream, "upstream's source archive")
    if run(upstream, "git", "status", "--porcelain"):
        sys.exit(
            f"Expected a checkout without changes.\nFound some in {upstream}.\nCommit them, or use another checkout."
        )
    run(upstream, "git", "checkout", "-q", "-B", f"neurobridge/{piece}", BASE)


def commit(upstream: Path, *paragraphs: str) -> None:
    """Commit everything, as whoever git knows, or as the kit where it knows nobody."""
    run(upstream, "git", "add", "--all")
    known = (
        subprocess.run(
            ["git", "config", "user.email"], cwd=upstream, capture_output=True
        ).returncode
        == 0
    )
    who = (
        ()
        if known
        else ("-c", "user.name=contrib kit", "-c", "user.email=kit@localhost")
    )
    run(
        upstream,
        "git",
        *who,
        "commit",
        "-q",
        *(x for text in paragraphs for x in ("-m", text)),
    )


def add_changelog_line(upstream: Path, request: PullRequest) -> None:
    """First line of the section under "Unreleased", which is made where it is missing."""
    path = upstream / "CHANGELOG.md"
    before, heading, rest = path.read_text(encoding="utf-8").partition(
        "## [Unreleased]\n"
    )
    unreleased, release, released = rest.partition("\n## [")
    section = f"### {request.section}\n"
    if section not in unreleased:
        unreleased = f"{section}\n{unreleased}"
    unreleased = unreleased.replace(section, f"{section}- {request.line}\n", 1)
    path.write_text(
        before + heading + unreleased + release + released, encoding="utf-8"
    )


def main() -> None:
    """Lay a piece in, check it, commit it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--upstream", type=Path, required=True, help="a checkout of torch_brain"
    )
    parser.add_argument("--piece", choices=sorted(PIECES), required=True)
    args = parser.parse_args()
    upstream, request = args.upstream.resolve(), pull_request(args.piece)
    if not (upstream / "torch_brain" / "pipeline").is_dir():
        sys.exit(
            f"Expected a checkout of torch_brain 0.2.\nFound none at {upstream}.\nName its folder as UPSTREAM."
        )

    new_branch(upstream, args.piece)
    changed, tests = PIECES[args.piece](upstream)
    add_changelog_line(upstream, request)
    files = [str(path.relative_to(upstream)) for path in changed]
    tests = [str(path.relative_to(upstream)) for path in tests]
    ruff = (sys.executable, "-m", "ruff")
    run(upstream, *ruff, "check", "-q", "--fix", *files)
    run(upstream, *ruff, "format", "-q", *files)
    run(upstream, *ruff, "check", ".")
    run(upstream, *ruff, "format", "--check", *files)
    modules = [
        file
        for file in files
        if file.startswith("torch_brain/") and "brainsets-pipelines" not in file
    ]
    print(run_tests(upstream, *tests))
    print(require_nothing_new(upstream, "Types", types))
    stems = [Path(file).stem for file in modules]
    print(require_nothing_new(upstream, "Docs", lambda folder: docs(folder, stems)))
    if modules:
        # Exit status 5: no doctest in these modules.
        doctests = f"import pytest, sys; sys.exit(pytest.main(['-q', '--doctest-modules', *{modules!r}]) % 5)"
        run(upstream, sys.executable, "-c", doctests)
    commit(upstream, request.title, request.text)
    print(
        f"Branch neurobridge/{args.piece} in {upstream}: {', '.join(files)}\n\n{request.title}\n\n{request.text}"
    )


if __name__ == "__main__":
    main()
