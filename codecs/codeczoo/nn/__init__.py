"""Floor 1: layers without an opinion about codecs."""
