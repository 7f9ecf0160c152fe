"""Floor 2: the large networks that codecs are made of."""
