"""What both sides share when they train: reading data and keeping files; neither NumPy by hand nor torch is in here."""
