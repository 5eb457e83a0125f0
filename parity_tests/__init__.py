"""The proof: scratch against torch and a reference in higher precision, operation by operation and as a whole."""
