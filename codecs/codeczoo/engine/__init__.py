"""Floor 4: training. One LightningModule for every codec, recipes composed by Hydra, run folders."""
