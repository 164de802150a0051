"""Train models: recipes, the training loop, optimizers and schedules, batch augmentation."""
