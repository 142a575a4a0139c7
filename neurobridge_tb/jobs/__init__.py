"""One file a job: what a user runs."""

import neurobridge_tb.engine  # noqa: F401  (prepares torchvision, before a job imports Lightning)
