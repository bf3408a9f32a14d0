"""Observation of compiled code by traceable taps, built once a few eager forwards have shown its calls."""
