"""What is measured: cases, their data, both libraries' sides, and the check before timing."""
