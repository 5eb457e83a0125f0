"""Images and labels: data sets, folders, files, and batches made ahead of time. This package uses neither scratch nor torch."""
