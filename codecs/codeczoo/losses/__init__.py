"""Floor 2: the terms that an objective weighs and adds up. They know codecs only through `core`."""
