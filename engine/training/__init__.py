"""Training: the child process; only this room and `results` import torch."""
