"""What a user may write down: run configs, overrides and the recipes of the package."""
