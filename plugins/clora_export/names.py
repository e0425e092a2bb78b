"""What the files of a bundle are called."""

from __future__ import annotations

WEIGHTS = "lora.safetensors"  # the core's own file
COMFYUI = "lora_comfyui.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
CARD = "README.md"
GRID = "grid.png"
EFFECT_PICTURES = "images"
WORKFLOW = "comfyui_workflow.json"
