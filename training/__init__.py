"""What both sides share when they train: reading data and keeping files. No arithmetic on pixels, neither NumPy-by-hand nor torch."""
