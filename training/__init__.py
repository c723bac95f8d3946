"""How `kontext-mini` is made: pictures, exact operations with many phrasings, an autoencoder, a small Kontext, its examination.

Nothing of the service imports this; see README.md here.
"""
