"""A run: its options, folder, checkpoints, files, evaluation, predictions and pictures."""
