"""Known truth: models whose dead units are known by construction, and the census each must give."""
