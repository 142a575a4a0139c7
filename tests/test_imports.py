"""Importing the package stays light, and bad situations name their remedy."""

import importlib
import json
import pickle
import subprocess
import sys

import pytest

from neurobridge_tb.errors import InputError, MissingExtraError, first_line, require

HEAVY = [
    "torch", "torch_brain", "ray", "pandas", "lightning", "hydra", "omegaconf", "scipy", "h5py", "matplotlib",
    "torchvision", "timm", "open_clip", "transformers", "diffusers",
]  # fmt: skip

HELP = """
import contextlib, io, json, sys
import neurobridge_tb
from neurobridge_tb.cli.main import main

found = {}

def note(name):
    found[name] = [m for m in %r if m in sys.modules]

note("import neurobridge_tb")

def ask(command, path):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        command.main([*path, "--help"], prog_name="neurobridge", standalone_mode=False)
    assert "Usage" in text.getvalue()
    note(" ".join(["neurobridge", *path, "--help"]))

ask(main, [])
for name, command in main.commands.items():
    ask(main, [name])
    for inner in getattr(command, "commands", {}):
        ask(main, [name, inner])
print(json.dumps(found))
"""


def test_import_and_every_help_bring_no_heavy_package():
    code = HELP % HEAVY
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(result.stdout)
    assert len(found) > 20 and "neurobridge pretrain --help" in found
    assert {name: modules for name, modules in found.items() if modules} == {}


def test_public_names_are_there_when_asked_for():
    import neurobridge_tb

    assert {"NeuroBridgeModel", "MODALITY_REGISTRY", "datasets"} <= set(dir(neurobridge_tb))
    for package in (
        "",
        ".alignment",
        ".datasets",
        ".generation",
        ".masking",
        ".models",
        ".registry_ext",
        ".simulation",
    ):
        module = importlib.import_module(f"neurobridge_tb{package}")
        assert module.__all__ and all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError):
        _ = neurobridge_tb.NeuroBrigdeModel


def test_a_missing_extra_names_the_command_that_installs_it():
    with pytest.raises(MissingExtraError, match=r"pip install 'neurobridge-tb\[vision\]'"):
        require("a_package_that_nobody_has", extra="vision")
    assert require("json", extra="vision").loads("1") == 1


def test_an_input_error_says_expected_found_and_what_to_do():
    error = InputError(expected="a cat", found="a dog", fix="Bring a cat.")
    assert str(error).splitlines() == ["Expected a cat.", "Found a dog.", "Bring a cat."]


def test_an_error_without_a_text_is_called_by_its_kind():
    assert first_line(ValueError(" two\nlines")) == "two"
    assert first_line(EOFError()) == first_line(EOFError("\n")) == "EOFError"


def test_control_characters_of_a_file_do_not_reach_the_terminal():
    error = InputError(expected="a name", found="\x1b]0;owned\x07\x1b[2Jmüller\u202e", fix="Rename it.")
    assert "\x1b" not in str(error) and "\x07" not in str(error) and "\u202e" not in str(error)
    assert "\\x1b[2Jmüller" in str(error)


class Faulty:
    def __len__(self):
        return 1

    def __getitem__(self, k):
        raise InputError(expected="a window", found="none", fix="Look at it.")


def test_an_error_comes_whole_out_of_another_process():
    from torch.utils.data import DataLoader

    said = "Expected a window.\nFound none.\nLook at it."
    with pytest.raises(InputError) as caught:
        list(DataLoader(Faulty(), num_workers=1))
    assert str(caught.value) == said
    error = pickle.loads(pickle.dumps(InputError(expected="a window", found="none", fix="Look at it.")))
    assert str(error) == said and error.found == "none"
