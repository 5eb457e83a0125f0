"""Code that only max_pool2d's compiled rung needs."""
