"""What scratch and torch_impl share (data and runs), and what uses both of them (the proof's machinery, exercises, X-ray)."""

import sys

if sys.argv[:1] == ["-m"]:  # "python -m" is looking for the module to run
    from alexnet_from_scratch.runs.interrupts import end_plainly

    end_plainly()

__version__ = "0.1.0"  # of all three packages; it equals that of the build, CITATION.cff, the changelog and the release's tag
