"""What poolkit keeps: definitions, the inventory, locks and secrets."""
