"""Image ids bound to files, and decoding of what image folders really hold."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from neurobridge_tb.datasets import StimulusImages
from neurobridge_tb.errors import InputError

RGB = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def save(folder, name, image, **options):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    image.save(folder / name, **options)
    return name


def load(folder, name, size=None):
    return StimulusImages(folder, [name]).load([name], size)[0]


def sixteen_bit_png(colour_type, values, transparent=None):
    """A PNG with 16 bits a sample, which Pillow reads but does not write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    key = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    return b"\x89PNG\r\n\x1a\n" + head + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_images_come_in_the_order_asked_for_and_as_often(tmp_path):
    names = [save(tmp_path, f"c{i}/x.png", Image.fromarray(RGB + i)) for i in range(3)]
    images = StimulusImages(tmp_path, names).load([names[2], names[0], names[2]])
    assert images.dtype == torch.uint8 and images.shape == (3, 3, 8, 8)
    np.testing.assert_array_equal(images[1].permute(1, 2, 0), RGB)
    assert torch.equal(images[0], images[2])


def test_gray_and_sixteen_bit_become_rgb(tmp_path):
    gray = RGB[..., 0]
    assert torch.equal(load(tmp_path, save(tmp_path, "g.png", Image.fromarray(gray)))[0], torch.tensor(gray))
    deep = load(tmp_path, save(tmp_path, "d.png", Image.fromarray(gray.astype(np.uint16) * 257)))
    assert torch.equal(deep, torch.tensor(gray).expand(3, -1, -1))


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.dstack([RGB, np.full((8, 8), 255, np.uint8)])
    rgba[:4, :, 3] = 0
    image = load(tmp_path, save(tmp_path, "a.png", Image.fromarray(rgba)))
    assert (image[:, :4] == 255).all()
    np.testing.assert_array_equal(image[:, 4:].permute(1, 2, 0), RGB[4:])


def test_sixteen_bits_of_any_layout_become_eight(tmp_path):
    """Colour with and without transparency, and gray with a transparent value, as PNG stores them."""
    deep = RGB.astype(">u2") * 257
    opaque, clear = np.full((8, 8, 1), 65535, ">u2"), np.zeros((8, 8, 1), ">u2")
    (tmp_path / "c.png").write_bytes(sixteen_bit_png(2, deep))
    assert torch.equal(load(tmp_path, "c.png"), torch.tensor(RGB).permute(2, 0, 1))
    (tmp_path / "o.png").write_bytes(sixteen_bit_png(6, np.dstack([deep, opaque])))
    assert torch.equal(load(tmp_path, "o.png"), torch.tensor(RGB).permute(2, 0, 1))
    (tmp_path / "t.png").write_bytes(sixteen_bit_png(6, np.dstack([deep, clear])))
    assert (load(tmp_path, "t.png") == 255).all()
    gray = np.zeros((8, 8, 1), ">u2")
    gray[4:] = 257
    (tmp_path / "g.png").write_bytes(sixteen_bit_png(0, gray, transparent=0))
    image = load(tmp_path, "g.png")
    assert (image[:, :4] == 255).all() and (image[:, 4:] == 1).all()


def test_cmyk_and_palette_become_rgb(tmp_path):
    flat = Image.new("RGB", (8, 8), (200, 40, 90))
    for name, mode in (("c.jpg", "CMYK"), ("p.png", "P")):
        image = load(tmp_path, save(tmp_path, name, flat.convert(mode)))
        assert image.shape == (3, 8, 8)
        assert (image.float().mean((1, 2)) - torch.tensor([200.0, 40.0, 90.0])).abs().max() < 20


def test_size_takes_the_centred_square(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    assert (load(tmp_path, save(tmp_path, "w.png", Image.fromarray(wide)), size=5) == 255).all()


def test_images_of_several_sizes_need_a_size(tmp_path):
    names = [save(tmp_path, f"{n}.png", Image.new("RGB", (n, 8))) for n in (8, 9)]
    with pytest.raises(InputError, match="8 x 8, 9 x 8[\\s\\S]*Give a size"):
        StimulusImages(tmp_path, names).load(names)
    assert StimulusImages(tmp_path, names).load(names, size=4).shape == (2, 3, 4, 4)


def test_truncated_and_unknown_files_are_named(tmp_path):
    save(tmp_path, "t.jpg", Image.fromarray(RGB).resize((200, 200)))
    (tmp_path / "t.jpg").write_bytes((tmp_path / "t.jpg").read_bytes()[:2000])
    (tmp_path / "u.jpg").write_bytes(b"not an image")
    save(tmp_path, "f.tif", Image.fromarray(RGB[..., 0].astype(np.float32)))
    save(tmp_path, "i.tif", Image.fromarray(RGB[..., 0].astype(np.int32) * 1000))
    reasons = {"t.jpg": "truncated", "u.jpg": "cannot identify", "f.tif": "floating-point", "i.tif": "beyond 16 bits"}
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=f"{name}[\\s\\S]*{reason}"):
            load(tmp_path, name)


def test_missing_files_are_counted_and_named(tmp_path):
    names = [save(tmp_path, "c/0.png", Image.fromarray(RGB)), *(f"c/{i}.png" for i in range(1, 8))]
    with pytest.raises(InputError, match="7 of 8 missing: c/1.png, c/2.png, c/3.png, c/4.png, c/5.png …"):
        StimulusImages(tmp_path, names)


def test_folder_without_images_is_named(tmp_path):
    (tmp_path / "readme.txt").write_text("no images here")
    with pytest.raises(InputError, match="Found none\\."):
        StimulusImages(tmp_path, ["c/0.png"])
    with pytest.raises(InputError, match="no such folder"):
        StimulusImages(tmp_path / "nowhere", ["c/0.png"])


@pytest.mark.parametrize("image_id", ["../x.png", "c/../../x.png", "/etc/x.png", "C:\\x.png", "c\\..\\x.png", ""])
def test_ids_that_lead_out_of_the_folder_are_refused(tmp_path, image_id):
    save(tmp_path, "c/0.png", Image.fromarray(RGB))
    with pytest.raises(InputError, match="below the images folder"):
        StimulusImages(tmp_path, [image_id])


def test_ids_that_were_not_bound_are_refused(tmp_path):
    images = StimulusImages(tmp_path, [save(tmp_path, "c/0.png", Image.fromarray(RGB))])
    with pytest.raises(InputError, match="'c/1.png'"):
        images.load(["c/1.png"])


def test_a_program_in_the_guise_of_a_picture_is_not_run(tmp_path):
    (tmp_path / "z.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n%%EOF\n")
    with pytest.raises(InputError, match="cannot be decoded"):
        StimulusImages(tmp_path, ["z.jpg"]).load(["z.jpg"])
