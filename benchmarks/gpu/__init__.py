"""What runs on a CUDA GPU with nothing but torch and transformers: `PYTHONPATH=. python benchmarks/gpu/train.py`."""
