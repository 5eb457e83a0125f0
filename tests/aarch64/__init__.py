"""The kernels on an emulated aarch64 processor, run by hand: see the script ``run`` in this folder."""
