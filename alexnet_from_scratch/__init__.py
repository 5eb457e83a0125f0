"""What scratch and torch_impl share (data, runs), and what uses both: the proof's machinery, exercises, the X-ray."""

import sys

if sys.argv[:1] == ["-m"]:  # "python -m" looks for one of these modules to run
    from alexnet_from_scratch.runs.interrupts import end_plainly

    end_plainly()

__version__ = "0.1.0"  # of all three packages; the build, CITATION.cff, the changelog and the release's tag have the same
