"""Networks, loss, sampling, guidance, generation and the training loop."""
