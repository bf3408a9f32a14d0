"""A comparison in the two or three sentences that a colleague would say."""

from __future__ import annotations
import pandas as pd
def sentences(*a, **k): return []
