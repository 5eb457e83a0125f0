"""Tests of data, runs, the book, the X-ray and the exercises; the parity proof is in parity_tests."""
