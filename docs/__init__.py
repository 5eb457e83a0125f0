"""The book and the X-ray: what the project has for readers."""
