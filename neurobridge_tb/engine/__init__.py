"""What jobs run on: configs, run folders, optimisers, checkpoints, Lightning modules."""

from importlib.util import find_spec

from neurobridge_tb.vision_imports import prepare_torchvision

if find_spec("torchvision"):  # Lightning imports torchmetrics, which imports torchvision where it is installed
    prepare_torchvision()
