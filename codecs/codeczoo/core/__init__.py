"""Floor 0: types, contracts, errors, configuration trees."""
