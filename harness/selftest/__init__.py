"""Known truth: models whose dead units are known by construction, and what a census must say of them."""
