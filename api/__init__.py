"""The thin HTTP face: authenticate, validate, translate, enqueue, answer.

What a wire API looks like belongs into `dialects`; what all of them need stands beside it. No GPU code, no worker code.
"""
