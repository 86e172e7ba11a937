"""The probe: what an endpoint really gives, found out with about twenty small questions. `run.probe` asks them."""
