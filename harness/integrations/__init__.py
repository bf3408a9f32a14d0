"""Thin callbacks for other people's trainers: the Recorder, its numbers in the host's own logger."""
