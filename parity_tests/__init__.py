"""The proof: scratch beside torch beside a reference in higher precision, operation by operation and as a whole."""
