"""From prepared recordings to pictures: pretrain, embed the images, align, evaluate, reconstruct, report.

python decode.py --processed processed --images images --out workspace
"""

from pathlib import Path

import click

from neurobridge_tb.jobs.align import align
from neurobridge_tb.jobs.embed import embed
from neurobridge_tb.jobs.evaluate import evaluate
from neurobridge_tb.jobs.pretrain import pretrain
from neurobridge_tb.jobs.reconstruct import reconstruct
from neurobridge_tb.report.page import build_report

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--processed", type=FOLDER, required=True, help="The --processed-dir of `brainsets prepare tvsd`.")
@click.option("--images", type=FOLDER, required=True, help="Folder of the images that were shown.")
@click.option("--out", type=FOLDER, default=Path("workspace"), help="Where runs and report go.")
@click.option("--model", default="small", help="Size of the encoder: tiny, laptop or small.")
@click.option("--epochs", default=50, help="Epochs of pretraining.")
@click.option("--encoder", default="timm:tf_efficientnet_lite0", help="Image encoder.")
@click.option("--image-size", default=128, help="Side in pixels at which images are embedded.")
@click.option("--backends", default="small_diffusion,nearest,ridge_pixels", help="What draws, with commas.")
def main(
    processed: Path, images: Path, out: Path, model: str, epochs: int, encoder: str, image_size: int, backends: str
) -> None:
    """Each step is a job; `neurobridge JOB --help` tells its settings, which are keyword arguments here."""
    runs = {job: str(out / "runs" / job) for job in ("pretrain", "align", "evaluate", "reconstruct")}
    recordings = {"dataset": "tvsd", "dataset.root": str(processed)}

    # 1. The encoder learns what the population shares, from activity alone.
    pretrained = pretrain(**recordings, model=model, **{"trainer.max_epochs": epochs}, run_dir=runs["pretrain"])

    # 2. Each image becomes a vector, once.
    embeddings = str(embed(images=str(images), out=str(out / "images.h5"), encoder=encoder, image_size=image_size))

    # 3. Activity and image meet in the space of these vectors.
    aligned = align(**recordings, embeddings=embeddings, pretrained=str(pretrained / "model"), run_dir=runs["align"])

    # 4. Which image was seen, among the test images? Then: draw it.
    found = {"embeddings": embeddings, "aligned": str(aligned)}
    evaluate(**recordings, **found, run_dir=runs["evaluate"])
    reconstruct(**recordings, **found, images=str(images), backends=backends.split(","), run_dir=runs["reconstruct"])
    click.echo(f"Report: {build_report(out)}")


if __name__ == "__main__":
    main()
