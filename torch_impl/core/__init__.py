"""What every operation of torch_impl shares: autograd's gradients with scratch's interface."""
