"""conv2d's faster rungs and what they share; ``conv2d.py`` has the definition, the slower rungs and the ladder."""
