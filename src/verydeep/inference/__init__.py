"""Views of pictures through a network: protocols, forward passes within their memory, descriptors."""
