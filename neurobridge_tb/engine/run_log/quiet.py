"""What libraries say in a training that is not about the user's run."""

import logging
import warnings

_HINTS = (
    r"The number of training batches",  # few batches make short epochs; epochs are logged all the same
    r"Checkpoint directory .* exists and is not empty",  # a run that goes on
    r"The '\w+' does not have many workers",
    r"It is recommended to use .*sync_dist=True",  # a metric that is summed over processes itself
)


def quiet_lightning() -> None:
    """Leave out Lightning's hints, and warnings of its own use of other libraries; other warnings pass."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for hint in _HINTS:
        warnings.filterwarnings("ignore", message=hint)
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(lightning|torchmetrics)\.")
