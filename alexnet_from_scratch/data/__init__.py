"""Images and labels: data sets, folders, files, and batches prepared ahead of time. It uses neither scratch nor torch."""
