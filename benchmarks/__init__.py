"""What is timed, and how: `python -m benchmarks.NAME --help`. See README.md for what was found."""
