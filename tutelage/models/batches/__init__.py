"""Providers' batch APIs: many questions in one job, at about half the price, answered within a day."""
