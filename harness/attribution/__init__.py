"""Why units died: step metrics, snapshots, replay, events and causes."""
