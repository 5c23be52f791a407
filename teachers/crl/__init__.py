"""Contrastive reinforcement learning: networks, losses, replay, gradient steps and the jitted iteration."""
