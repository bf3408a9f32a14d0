"""What pytest does not collect.

The docstring examples of these two are run by tests/integrations, so that not every test process spends ten
seconds importing the libraries that they need.
"""

collect_ignore = ["harness/integrations/lightning.py", "harness/integrations/transformers.py"]
