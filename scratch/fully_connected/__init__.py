"""Code that only linear's compiled rung needs."""
