"""One-pass reductions of pre-activations and gradients into the running sums of a site."""
