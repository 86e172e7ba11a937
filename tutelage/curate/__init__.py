"""Which exchanges are trained on: kept, or dropped with a reason."""
