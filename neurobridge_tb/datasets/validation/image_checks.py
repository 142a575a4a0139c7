"""Images that serve two splits: what is found again in the test was learnt by heart."""

from collections.abc import Iterator

import h5py
import numpy as np

from neurobridge_tb.datasets.columns import as_text
from neurobridge_tb.datasets.containment import lie_within
from neurobridge_tb.datasets.validation.contents import SPLITS, Contents, Fault


def shared_image_faults(file: h5py.File, contents: Contents) -> Iterator[Fault]:
    """Images of test presentations that training or validation presentations show too, and of validation ones.

    Args:
        file: The recording.
        contents: Its intervals: each with a column ``image_id``, and the splits' domains.
    """
    for place, (bounds, columns) in contents.intervals.items():
        if "image_id" not in columns or len(file[place]["image_id"]) != len(bounds):
            continue
        ids = as_text(file[place]["image_id"][:])
        domains = {s: contents.intervals.get(f"{s}_domain", (np.empty((0, 2)), []))[0] for s in SPLITS}
        shown = {s: set(ids[lie_within(bounds, domain) & (ids != "")]) for s, domain in domains.items()}
        for later, earlier in (("test", "train"), ("test", "valid"), ("valid", "train")):
            if both := sorted(shown[later] & shown[earlier]):
                found = f"{len(both)} of {len(shown[later])} {later} images are in {earlier} too: {', '.join(both[:3])}"
                yield Fault(f"{place}/image_id", found, "Split by image: all presentations of one on one side.", False)
