"""For the authors of backbones and datasets: diffusers folders, the Hub, pictures, quantised and offloaded networks."""
