"""The thin HTTP face: authenticate, validate, translate, enqueue, answer. No GPU code, no worker code.

    dialects     somebody's wire API each
    http         what every route has in common: keys, bodies, errors, event streams
    service      what is done for a caller, whatever their dialect; knows no HTTP
    webhooks     calls those who asked to be called

Imports point down that list; `resources` holds what all of them use, `app` puts them together.
"""
