"""A training tried again with something changed: what was its cause, and which cure works?"""
