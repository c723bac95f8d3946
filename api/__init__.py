"""The thin HTTP face: authenticate, validate, translate, enqueue, answer. No GPU code, no worker code.

    dialects     somebody's wire API each
    http         what every route has in common: keys, bodies, errors, event streams
    service      what is done for a caller, whatever their dialect; knows no HTTP
    webhooks     called when a generation starts or is over

Imports point down that list; `resources` holds what all of them use, `app` puts them together.
"""
