"""LoRA files: every layout in use is read, two are written; only safetensors, so nothing in a file is executed."""
