"""What pytest does not collect.

The docstring examples of the integrations are run by tests/integrations, so that not every test process
spends ten seconds importing the libraries that they need; the GPU's kernels need Triton, which not every
torch has.
"""

collect_ignore = [
    "harness/integrations/lightning.py",
    "harness/integrations/transformers.py",
    "harness/hooks/fused_kernels.py",
]
