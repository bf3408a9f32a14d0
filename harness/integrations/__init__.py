"""Thin callbacks for third-party trainers: they run the Recorder and log to the trainer's own loggers."""
