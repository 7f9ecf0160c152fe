"""Floor 4: data modules. Import what you need from its own module; `pictures` is free of lightning."""
