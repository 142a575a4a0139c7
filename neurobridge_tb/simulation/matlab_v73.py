"""MATLAB v7.3 files: HDF5 behind a 512-byte user block, with the class of each variable as an attribute.

The same content always gives the same bytes: no times are stored, neither in the header text nor in the objects.
"""

import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike

from neurobridge_tb.files import write_aside

_USER_BLOCK = 512
_HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created by: neurobridge_tb simulation HDF5 schema 1.00 ."
_DIGITS = string.ascii_letters + "1234567890"  # MATLAB numbers the objects under #refs# with these, lowest first


@contextmanager
def matlab_file(path: str | Path) -> Iterator[h5py.File]:
    """Open a new v7.3 file for writing; it takes its final name when the body has ended without an error."""
    with write_aside(path) as aside:
        with h5py.File(aside, "w", userblock_size=_USER_BLOCK, libver="earliest") as file:
            yield file
        with open(aside, "r+b") as raw:
            raw.write(_HEADER.ljust(116) + bytes(8) + b"\x00\x02IM")


def create_double(
    file: h5py.File,
    name: str,
    data: ArrayLike | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    chunks: tuple[int, ...] | None = None,
) -> h5py.Dataset:
    """Variable of class double. MATLAB shows its axes in reverse order."""
    dataset = file.create_dataset(name, shape=shape, data=data, dtype="<f8", chunks=chunks, track_times=False)
    dataset.attrs["MATLAB_class"] = np.bytes_("double")
    return dataset


def write_struct_arrays(file: h5py.File, structs: dict[str, dict[str, Sequence[str]]]) -> None:
    """Struct arrays whose fields are strings: ``structs[variable][field][element]``.

    Each field becomes a dataset (elements, 1) of references to uint16 characters (length, 1) under ``#refs#``.
    """
    strings = file.create_group("#refs#")
    empty = strings.create_dataset("a", data=np.zeros(2, dtype="<u8"), track_times=False)
    empty.attrs["MATLAB_class"] = np.bytes_("canonical empty")
    empty.attrs["MATLAB_empty"] = np.uint8(1)
    number = 1
    for variable, fields in structs.items():
        group = file.create_group(variable)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        names = np.empty(len(fields), dtype=object)
        names[:] = [np.array(list(field), dtype="S1") for field in fields]
        group.attrs.create("MATLAB_fields", names, dtype=h5py.vlen_dtype("S1"))
        for field, values in fields.items():
            references = np.empty((len(values), 1), dtype=h5py.ref_dtype)
            for row, text in enumerate(values):
                references[row, 0] = _write_characters(strings, _object_name(number), text).ref
                number += 1
            group.create_dataset(field, data=references, dtype=h5py.ref_dtype, track_times=False)


def _write_characters(group: h5py.Group, name: str, text: str) -> h5py.Dataset:
    characters = np.frombuffer(text.encode("utf-16-le"), dtype="<u2").reshape(-1, 1)
    dataset = group.create_dataset(name, data=characters, track_times=False)
    dataset.attrs["H5PATH"] = np.bytes_(f"/#refs#/{name}")
    dataset.attrs["MATLAB_class"] = np.bytes_("char")
    dataset.attrs["MATLAB_int_decode"] = np.int32(2)
    return dataset


def _object_name(number: int) -> str:
    name = ""
    while number or not name:
        number, digit = divmod(number, len(_DIGITS))
        name += _DIGITS[digit]
    return name
