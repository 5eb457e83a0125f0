"""The output of runs: results, tables, plots, goals, documents."""
