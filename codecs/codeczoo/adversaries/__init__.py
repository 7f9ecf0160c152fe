"""Floor 2: discriminators and their losses."""
