"""Attribution of deaths: step metrics, snapshots, replay, events and causes."""
