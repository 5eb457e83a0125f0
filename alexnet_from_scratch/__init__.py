"""What scratch and torch_impl share (data, runs), and what uses both: the proof's machinery, exercises, the X-ray."""
