"""Commands on images: their embeddings, and decoders trained on them."""

from pathlib import Path

import click

from neurobridge_tb.cli.options import FILE, FOLDER, IMAGES, progress_bars

_ENCODER = "timm:tf_efficientnet_lite0"


@click.command()
@click.argument("images", type=IMAGES)
@click.option("--out", type=FILE, required=True, help="HDF5 file to write.")
@click.option("--encoder", default=_ENCODER, show_default=True, help="timm:NAME[@WEIGHTS] or open_clip:NAME/TAG.")
@click.option("--image-size", type=int, default=None, help="Pixels; default: the encoder's own.")
@click.option("--layers", default="final", show_default=True,
              help="Names or shares of the depth, on places with @3x3: 0.5@3x3,final.")  # fmt: skip
def embed(images: Path, out: Path, encoder: str, image_size: int | None, layers: str) -> None:
    """Embed every image once, for `align`, `evaluate` and `reconstruct`.

    IMAGES is a folder, or a binding made by `neurobridge images`.
    """
    from neurobridge_tb.jobs.embed import embed_folder

    with progress_bars() as progress:
        count = embed_folder(images, out, encoder, image_size, layers.split(","), progress=progress)
    click.echo(f"{count} embeddings lie in {out}")


@click.command("train-decoder")
@click.argument("images", type=IMAGES)
@click.option("--out", type=FOLDER, required=True, help="Folder to write the decoder to.")
@click.option("--embeddings", type=FILE, required=True, help="File made by `embed` on this folder.")
@click.option("--backend", type=click.Choice(["small_diffusion", "sd_adapter", "ip_adapter"]),
              default="small_diffusion", show_default=True)  # fmt: skip
@click.option("--minutes", default=30.0, show_default=True, help="How long to train.")
@click.option("--exclude", type=FILE, default=None, help="Recording (HDF5) whose test images are left out.")
@click.option("--weights", default=None, help="Adapters: hub id or folder of Stable Diffusion.")
@click.option("--autoencoder", type=FOLDER, default=None, help="small_diffusion: draw in the latents of this one.")
@click.option("--image-size", type=int, default=None, help="Pixels; default: 64, or Stable Diffusion's own.")
@click.option("--batch-size", type=int, default=None, help="Pictures a step; default: 64, for adapters 8.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--seed", default=0, show_default=True)
def train_decoder(
    images: Path, out: Path, embeddings: Path, backend: str, minutes: float, exclude: Path | None,
    weights: str | None, autoencoder: Path | None, image_size: int | None, batch_size: int | None,
    device: str, dtype: str, seed: int,
) -> None:  # fmt: skip
    """Train a decoder on a folder of images: image embedding -> picture.

    By default a small diffusion model, 64 x 64 pixels, which needs nothing else; or an adapter to a frozen Stable
    Diffusion. Test images must not be among those it learns from: name the recording with --exclude. Run again with the
    same --out to resume.
    """
    from neurobridge_tb.jobs.train_decoder import train_decoder as train

    with progress_bars() as progress:
        train(
            images, embeddings, out, backend=backend, minutes=minutes, exclude=exclude, weights=weights,
            autoencoder=autoencoder, image_size=image_size, batch_size=batch_size, device=device, dtype=dtype,
            seed=seed, progress=progress,
        )  # fmt: skip
    click.echo(f"Decoder lies in {out}")
