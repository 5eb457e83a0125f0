"""What every operation of torch_impl shares: gradients by autograd behind scratch's contract."""
