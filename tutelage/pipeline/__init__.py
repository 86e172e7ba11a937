"""The stages in order; the only writer of the ledger."""
