"""Floor 2: one algorithm a class, all behind core.base.Quantizer."""
