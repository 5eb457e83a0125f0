"""What the book is made with, beside Sphinx: source pulled in, figures read from results, pictures drawn by the kernels."""
