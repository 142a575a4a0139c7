"""What a training tells: progress, losses, loggers."""
