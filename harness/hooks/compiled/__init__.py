"""How compiled code is observed: traceable taps, made once a few eager forwards have shown what it calls."""
