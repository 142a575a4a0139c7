"""Importing the package stays light, and bad situations name their remedy."""

import subprocess
import sys

import pytest

from neurobridge_tb.errors import InputError, MissingExtraError, require

HEAVY = ["diffusers", "open_clip", "timm", "transformers", "lightning", "hydra", "matplotlib", "torchvision"]


def test_import_brings_no_heavy_package():
    code = f"import neurobridge_tb, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_the_command_starts_without_heavy_packages():
    code = f"import neurobridge_tb.cli.main, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_a_missing_extra_names_the_command_that_installs_it():
    with pytest.raises(MissingExtraError, match=r"pip install 'neurobridge-tb\[vision\]'"):
        require("a_package_that_nobody_has", extra="vision")
    assert require("json", extra="vision").loads("1") == 1


def test_an_input_error_says_expected_found_and_what_to_do():
    error = InputError(expected="a cat", found="a dog", fix="Bring a cat.")
    assert str(error).splitlines() == ["Expected a cat.", "Found a dog.", "Bring a cat."]


def test_control_characters_of_a_file_do_not_reach_the_terminal():
    error = InputError(expected="a name", found="\x1b]0;owned\x07\x1b[2Jmüller\u202e", fix="Rename it.")
    assert "\x1b" not in str(error) and "\x07" not in str(error) and "\u202e" not in str(error)
    assert "\\x1b[2Jmüller" in str(error)
