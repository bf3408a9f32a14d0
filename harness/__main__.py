"""`python -m harness` is the command `harness`."""

from harness.start import entry

if __name__ == "__main__":
    entry()
