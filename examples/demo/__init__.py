"""The demo: an analytic scene, a StyleGAN2 that imitates it, and the labels trained on it."""
